// Renders a chart as `helm template` does, with Helm's own libraries (text/template, sprig, sigs.k8s.io/yaml), for machines
// without Helm. Only what a chart of this repository uses: no subcharts, no hooks but `test`, no cluster (`lookup` is empty).
//
//	render -chart DIR [-name NAME] [-namespace NS] [-values FILE]... [-set PATH=VALUE]... [-kube-version V] [-fixed] [-tests] [-notes]
//
// The objects go to standard output, each under "# Source: CHART/templates/FILE", in the order in which Helm installs kinds.
// Exit code 1 with one line where a value is not as values.schema.json has it, or a template fails.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"

	"github.com/xeipuuv/gojsonschema"
	"sigs.k8s.io/yaml"
)

// The order in which Helm installs kinds (helm.sh/helm pkg/release/util/kind_sorter.go); others come last.
var installOrder = []string{
	"PriorityClass", "Namespace", "NetworkPolicy", "ResourceQuota", "LimitRange", "PodSecurityPolicy", "PodDisruptionBudget",
	"ServiceAccount", "Secret", "SecretList", "ConfigMap", "StorageClass", "PersistentVolume", "PersistentVolumeClaim",
	"CustomResourceDefinition", "ClusterRole", "ClusterRoleList", "ClusterRoleBinding", "ClusterRoleBindingList", "Role", "RoleList",
	"RoleBinding", "RoleBindingList", "Service", "DaemonSet", "Pod", "ReplicationController", "ReplicaSet", "Deployment",
	"HorizontalPodAutoscaler", "StatefulSet", "Job", "CronJob", "IngressClass", "Ingress", "APIService",
	"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration",
}

var separator = regexp.MustCompile(`(?m)^---[ \t]*$`)

type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(v string) error { *l = append(*l, v); return nil }

type manifest struct {
	source, kind, text string
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}

func run() error {
	var values, sets list
	chart := flag.String("chart", "manifests/chart", "folder of the chart")
	name := flag.String("name", "nestgate", "name of the release")
	namespace := flag.String("namespace", "nestgate-system", "namespace of the release")
	kube := flag.String("kube-version", "1.34.0", "version of the cluster")
	fixed := flag.Bool("fixed", false, "make placeholders of certificates, so that the result is the same each time")
	tests := flag.Bool("tests", false, "with the pods of `helm test`")
	notes := flag.Bool("notes", false, "print NOTES.txt in place of the objects")
	flag.Var(&values, "values", "file of values; may be repeated")
	flag.Var(&sets, "set", "PATH=VALUE; may be repeated")
	flag.Parse()

	merged, err := readValues(*chart, values, sets)
	if err != nil {
		return err
	}
	if err := checkSchema(*chart, merged); err != nil {
		return err
	}
	metadata, err := readYAML(filepath.Join(*chart, "Chart.yaml"))
	if err != nil {
		return err
	}
	version := strings.TrimPrefix(*kube, "v")
	if err := checkKube(metadata, version); err != nil {
		return err
	}
	data := map[string]interface{}{
		"Values":       merged,
		"Chart":        titled(metadata),
		"Release":      map[string]interface{}{"Name": *name, "Namespace": *namespace, "Service": "Helm", "Revision": 1, "IsInstall": true, "IsUpgrade": false},
		"Capabilities": capabilitiesOf(version),
		"Files":        files{root: *chart},
	}
	rendered, err := renderAll(*chart, data, *fixed)
	if err != nil {
		return err
	}
	if *notes {
		fmt.Print(rendered["templates/NOTES.txt"])
		return nil
	}
	return print(metadata["name"], rendered, *tests)
}

func print(chart interface{}, rendered map[string]string, tests bool) error {
	var manifests []manifest
	for _, path := range sortedKeys(rendered) {
		if !strings.HasSuffix(path, ".yaml") || (!tests && strings.HasPrefix(path, "templates/tests/")) {
			continue
		}
		for _, text := range separator.Split(rendered[path], -1) {
			object := map[string]interface{}{}
			if err := yaml.UnmarshalStrict([]byte(text), &object); err != nil {
				return fmt.Errorf("%s: %w\n%s", path, err, text)
			}
			if len(object) > 0 {
				manifests = append(manifests, manifest{path, fmt.Sprint(object["kind"]), strings.TrimSpace(text)})
			}
		}
	}
	sort.SliceStable(manifests, func(a, b int) bool { return rank(manifests[a].kind) < rank(manifests[b].kind) })
	for _, one := range manifests {
		fmt.Printf("---\n# Source: %v/%s\n%s\n", chart, one.source, one.text)
	}
	return nil
}

func rank(kind string) int {
	for at, known := range installOrder {
		if known == kind {
			return at
		}
	}
	return len(installOrder)
}

func readYAML(path string) (map[string]interface{}, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	parsed := map[string]interface{}{}
	if err := yaml.UnmarshalStrict(text, &parsed); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return parsed, nil
}

func readValues(chart string, paths, sets []string) (map[string]interface{}, error) {
	merged, err := readYAML(filepath.Join(chart, "values.yaml"))
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		over, err := readYAML(path)
		if err != nil {
			return nil, err
		}
		merge(merged, over)
	}
	for _, set := range sets {
		path, text, found := strings.Cut(set, "=")
		if !found {
			return nil, fmt.Errorf("-set %s: expected PATH=VALUE", set)
		}
		var value interface{}
		if err := yaml.Unmarshal([]byte(text), &value); err != nil {
			return nil, err
		}
		keys := strings.Split(path, ".")
		for at := len(keys) - 1; at >= 0; at-- {
			value = map[string]interface{}{keys[at]: value}
		}
		merge(merged, value.(map[string]interface{}))
	}
	return merged, nil
}

// Maps are merged, everything else is replaced, and null takes a default away, as in Helm.
func merge(into, over map[string]interface{}) {
	for key, value := range over {
		from, isMap := value.(map[string]interface{})
		to, wasMap := into[key].(map[string]interface{})
		switch {
		case value == nil:
			delete(into, key)
		case isMap && wasMap:
			merge(to, from)
		default:
			into[key] = value
		}
	}
}

func checkSchema(chart string, values map[string]interface{}) error {
	text, err := os.ReadFile(filepath.Join(chart, "values.schema.json"))
	if err != nil {
		return err
	}
	result, err := gojsonschema.Validate(gojsonschema.NewBytesLoader(text), gojsonschema.NewGoLoader(values))
	if err != nil {
		return fmt.Errorf("values.schema.json: %w", err)
	}
	if result.Valid() {
		return nil
	}
	var problems []string
	for _, problem := range result.Errors() {
		problems = append(problems, problem.String())
	}
	return fmt.Errorf("values: %s", strings.Join(problems, "; "))
}

func checkKube(metadata map[string]interface{}, version string) error {
	wanted, ok := metadata["kubeVersion"].(string)
	if !ok {
		return nil
	}
	fits, err := semverCompare(wanted, version)
	if err != nil {
		return fmt.Errorf("version of Kubernetes: %w", err)
	}
	if !fits {
		return fmt.Errorf("chart requires kubeVersion %s, not %s", wanted, version)
	}
	return nil
}

// Chart.yaml as templates see it: the fields begin with a capital.
func titled(metadata map[string]interface{}) map[string]interface{} {
	fields := map[string]interface{}{}
	for key, value := range metadata {
		fields[strings.ToUpper(key[:1])+key[1:]] = value
	}
	return fields
}

func sortedKeys(of map[string]string) []string {
	var keys []string
	for key := range of {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}
