package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"text/template"

	sprig "github.com/Masterminds/sprig/v3"
	"sigs.k8s.io/yaml"
)

// What Helm writes where a template reads a value that is not there (helm.sh/helm pkg/engine/engine.go).
const noValue = "<no value>"

// Of the machine that renders; Helm has no such functions either.
var withoutThese = []string{"env", "expandenv"}

// renderAll gives the text of every template but those that begin with an underscore, by their path in the chart.
func renderAll(chart string, data map[string]interface{}, fixed bool) (map[string]string, error) {
	set := template.New("chart").Option("missingkey=zero")
	set.Funcs(functions(set, fixed))
	root := filepath.Join(chart, "templates")
	var paths []string
	err := filepath.WalkDir(root, func(file string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(chart, file)
		if err != nil {
			return err
		}
		paths = append(paths, name)
		_, err = set.New(name).Parse(string(text))
		return err
	})
	if err != nil {
		return nil, err
	}
	rendered := map[string]string{}
	for _, name := range paths {
		if strings.HasPrefix(path.Base(name), "_") {
			continue
		}
		data["Template"] = map[string]interface{}{"Name": fmt.Sprint(data["Chart"].(map[string]interface{})["Name"], "/", name), "BasePath": "templates"}
		var out strings.Builder
		if err := set.ExecuteTemplate(&out, name, data); err != nil {
			return nil, err
		}
		rendered[name] = strings.ReplaceAll(out.String(), noValue, "")
	}
	return rendered, nil
}

func functions(set *template.Template, fixed bool) template.FuncMap {
	funcs := sprig.TxtFuncMap()
	for _, name := range withoutThese {
		delete(funcs, name)
	}
	funcs["include"] = func(name string, data interface{}) (string, error) {
		var out strings.Builder
		err := set.ExecuteTemplate(&out, name, data)
		return out.String(), err
	}
	funcs["tpl"] = func(text string, data interface{}) (string, error) {
		own, err := set.Clone()
		if err != nil {
			return "", err
		}
		parsed, err := own.New("tpl").Parse(text)
		if err != nil {
			return "", err
		}
		var out strings.Builder
		err = parsed.Execute(&out, data)
		return strings.ReplaceAll(out.String(), noValue, ""), err
	}
	funcs["required"] = func(message string, value interface{}) (interface{}, error) {
		if text, isText := value.(string); value == nil || (isText && text == "") {
			return value, errors.New(message)
		}
		return value, nil
	}
	funcs["fail"] = func(message string) (string, error) { return "", errors.New(message) }
	// As `helm template`, which has no cluster to ask.
	funcs["lookup"] = func(string, string, string, string) map[string]interface{} { return map[string]interface{}{} }
	funcs["toYaml"] = toYAML
	funcs["toJson"] = func(value interface{}) string { text, _ := json.Marshal(value); return string(text) }
	funcs["fromYaml"] = func(text string) map[string]interface{} {
		parsed := map[string]interface{}{}
		if err := yaml.Unmarshal([]byte(text), &parsed); err != nil {
			parsed["Error"] = err.Error()
		}
		return parsed
	}
	funcs["fromYamlArray"] = func(text string) []interface{} {
		parsed := []interface{}{}
		if err := yaml.Unmarshal([]byte(text), &parsed); err != nil {
			parsed = []interface{}{err.Error()}
		}
		return parsed
	}
	funcs["fromJson"] = funcs["fromYaml"]
	if fixed {
		placeCertificates(funcs)
	}
	return funcs
}

type certificate struct{ Cert, Key string }

// In place of certificates, which are others each time.
func placeCertificates(funcs template.FuncMap) {
	funcs["genCA"] = func(name string, days int) certificate {
		return certificate{fmt.Sprintf("authority %s, %d days\n", name, days), "key of it\n"}
	}
	funcs["genSignedCert"] = func(name string, ips, hosts []interface{}, days int, by certificate) certificate {
		return certificate{fmt.Sprintf("%s for %v %v, %d days, by %s", name, hosts, ips, days, by.Cert), "key of it\n"}
	}
}

func toYAML(value interface{}) string {
	text, err := yaml.Marshal(value)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(text), "\n")
}

type kubeVersion struct{ Version, Major, Minor, GitVersion string }

func (v kubeVersion) String() string { return v.Version }

// Every version of an API is there: a template that has to know asks for the version of Kubernetes.
type apiVersions struct{}

func (apiVersions) Has(string) bool { return true }

type capabilities struct {
	KubeVersion kubeVersion
	APIVersions apiVersions
}

func capabilitiesOf(version string) capabilities {
	parts := append(strings.Split(version, "."), "0")
	text := "v" + version
	return capabilities{KubeVersion: kubeVersion{text, parts[0], parts[1], text}}
}

// By the library's copy that sprig has: in GOPATH mode Debian's cannot be imported from outside it.
func semverCompare(constraint, version string) (bool, error) {
	compare := sprig.TxtFuncMap()["semverCompare"].(func(string, string) (bool, error))
	return compare(constraint, version)
}

type files struct{ root string }

// Get is the text of a file of the chart; empty where there is none.
func (f files) Get(name string) string {
	text, err := os.ReadFile(filepath.Join(f.root, filepath.Clean("/"+name)))
	if err != nil {
		return ""
	}
	return string(text)
}

// Glob is the texts of the files whose path in the chart matches, by that path.
func (f files) Glob(pattern string) map[string]string {
	found := map[string]string{}
	matches, _ := filepath.Glob(filepath.Join(f.root, pattern))
	for _, match := range matches {
		if name, err := filepath.Rel(f.root, match); err == nil {
			found[name] = f.Get(name)
		}
	}
	return found
}
