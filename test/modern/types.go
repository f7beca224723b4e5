package main

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	quantities "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/cel/openapi/resolver"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// youngFields came after the first release with policies, where their names are unknown.
var youngFields = []string{"podCertificate", "fileKeyRef"}

// goTypes resolves schemas of core/v1 from its Go types: the published ones are generated from the same, and live in k8s.io/kubernetes.
type goTypes struct{ without []string }

var _ resolver.SchemaResolver = goTypes{}

func (g goTypes) ResolveSchema(kind schema.GroupVersionKind) (*spec.Schema, error) {
	object, err := scheme.New(kind)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", resolver.ErrSchemaNotFound, err)
	}
	made := g.schemaOf(reflect.TypeOf(object))
	made.AddExtension("x-kubernetes-group-version-kind", []any{map[string]any{"group": kind.Group, "version": kind.Version, "kind": kind.Kind}})
	return made, nil
}

func of(name, format string) *spec.Schema {
	return &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{name}, Format: format}}
}

func (g goTypes) schemaOf(kind reflect.Type) *spec.Schema {
	switch kind {
	case reflect.TypeFor[metav1.Time](), reflect.TypeFor[metav1.MicroTime](), reflect.TypeFor[time.Time]():
		return of("string", "date-time")
	case reflect.TypeFor[quantities.Quantity]():
		return of("string", "")
	case reflect.TypeFor[metav1.FieldsV1]():
		return of("object", "")
	case reflect.TypeFor[intstr.IntOrString]():
		either := &spec.Schema{}
		either.AddExtension("x-kubernetes-int-or-string", true)
		return either
	}
	switch kind.Kind() {
	case reflect.Pointer:
		return g.schemaOf(kind.Elem())
	case reflect.String:
		return of("string", "")
	case reflect.Bool:
		return of("boolean", "")
	case reflect.Int, reflect.Int32, reflect.Int64:
		return of("integer", "int64")
	case reflect.Slice:
		if kind.Elem().Kind() == reflect.Uint8 {
			return of("string", "byte")
		}
		list := of("array", "")
		list.Items = &spec.SchemaOrArray{Schema: g.schemaOf(kind.Elem())}
		return list
	case reflect.Map:
		values := of("object", "")
		values.AdditionalProperties = &spec.SchemaOrBool{Allows: true, Schema: g.schemaOf(kind.Elem())}
		return values
	case reflect.Struct:
		object := of("object", "")
		object.Properties = map[string]spec.Schema{}
		g.addFields(object, kind)
		return object
	}
	panic(fmt.Sprint("no schema for ", kind))
}

func (g goTypes) addFields(object *spec.Schema, kind reflect.Type) {
	for i := range kind.NumField() {
		field := kind.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case name == "" && strings.Contains(options, "inline"):
			g.addFields(object, field.Type)
		case name != "" && name != "-" && !slices.Contains(g.without, name):
			object.Properties[name] = *g.schemaOf(field.Type)
		}
	}
}

// checkTypes says what kube-controller-manager would write into the status of the policies of a file (validatingadmissionpolicystatus):
// for this release, and for the first one with policies as far as the fields go.
func checkTypes(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var policies []admissionv1.ValidatingAdmissionPolicy
	if err := json.Unmarshal(text, &policies); err != nil {
		return err
	}
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{corev1.SchemeGroupVersion})
	for _, name := range []string{"Pod", "Secret", "Namespace"} {
		mapper.Add(corev1.SchemeGroupVersion.WithKind(name), meta.RESTScopeNamespace)
	}
	for _, without := range [][]string{nil, youngFields} {
		checker := validating.TypeChecker{SchemaResolver: goTypes{without}, RestMapper: mapper}
		for i := range policies {
			for _, warning := range checker.Check(ofWholeObjects(&policies[i])) {
				fmt.Printf("%s %s: %s\n", policies[i].Name, warning.FieldRef, warning.Warning)
			}
		}
	}
	return nil
}

// ofWholeObjects has resources in place of subresources of the same kind, and variables as validations too: neither is checked by itself.
func ofWholeObjects(policy *admissionv1.ValidatingAdmissionPolicy) *admissionv1.ValidatingAdmissionPolicy {
	whole := policy.DeepCopy()
	for i := range whole.Spec.MatchConstraints.ResourceRules {
		rule := &whole.Spec.MatchConstraints.ResourceRules[i]
		for j, name := range rule.Resources {
			rule.Resources[j] = strings.TrimSuffix(name, "/ephemeralcontainers")
		}
	}
	for _, variable := range whole.Spec.Variables {
		whole.Spec.Validations = append(whole.Spec.Validations, admissionv1.Validation{Expression: variable.Expression})
	}
	return whole
}
