package main

import (
	"context"
	"fmt"
	"net/http"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericrequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/filters"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// resource is one line of what is served.
type resource struct {
	version     schema.GroupVersion
	name        string
	namespaced  bool
	newObject   func() runtime.Object
	newList     func() runtime.Object
	validate    func(object runtime.Object) field.ErrorList
	createOnPut bool
}

var served = []resource{
	{corev1.SchemeGroupVersion, "namespaces", false, func() runtime.Object { return &corev1.Namespace{} }, func() runtime.Object { return &corev1.NamespaceList{} }, nil, false},
	{corev1.SchemeGroupVersion, "configmaps", true, func() runtime.Object { return &corev1.ConfigMap{} }, func() runtime.Object { return &corev1.ConfigMapList{} }, nil, false},
	{corev1.SchemeGroupVersion, "secrets", true, func() runtime.Object { return &corev1.Secret{} }, func() runtime.Object { return &corev1.SecretList{} }, nil, false},
	{corev1.SchemeGroupVersion, "pods", true, func() runtime.Object { return &corev1.Pod{} }, func() runtime.Object { return &corev1.PodList{} }, nil, false},
	{corev1.SchemeGroupVersion, "serviceaccounts", true, func() runtime.Object { return &corev1.ServiceAccount{} }, func() runtime.Object { return &corev1.ServiceAccountList{} }, nil, false},
	{appsv1.SchemeGroupVersion, "deployments", true, func() runtime.Object { return &appsv1.Deployment{} }, func() runtime.Object { return &appsv1.DeploymentList{} }, nil, false},
	{rbacv1.SchemeGroupVersion, "roles", true, func() runtime.Object { return &rbacv1.Role{} }, func() runtime.Object { return &rbacv1.RoleList{} }, nil, true},
	{rbacv1.SchemeGroupVersion, "rolebindings", true, func() runtime.Object { return &rbacv1.RoleBinding{} }, func() runtime.Object { return &rbacv1.RoleBindingList{} }, nil, true},
	{rbacv1.SchemeGroupVersion, "clusterroles", false, func() runtime.Object { return &rbacv1.ClusterRole{} }, func() runtime.Object { return &rbacv1.ClusterRoleList{} }, nil, true},
	{rbacv1.SchemeGroupVersion, "clusterrolebindings", false, func() runtime.Object { return &rbacv1.ClusterRoleBinding{} }, func() runtime.Object { return &rbacv1.ClusterRoleBindingList{} }, nil, true},
	{admissionv1.SchemeGroupVersion, "validatingadmissionpolicies", false, func() runtime.Object { return &admissionv1.ValidatingAdmissionPolicy{} }, func() runtime.Object { return &admissionv1.ValidatingAdmissionPolicyList{} }, policyErrors, false},
	{admissionv1.SchemeGroupVersion, "validatingadmissionpolicybindings", false, func() runtime.Object { return &admissionv1.ValidatingAdmissionPolicyBinding{} }, func() runtime.Object { return &admissionv1.ValidatingAdmissionPolicyBindingList{} }, nil, false},
	{admissionv1.SchemeGroupVersion, "validatingwebhookconfigurations", false, func() runtime.Object { return &admissionv1.ValidatingWebhookConfiguration{} }, func() runtime.Object { return &admissionv1.ValidatingWebhookConfigurationList{} }, nil, false},
	{admissionv1.SchemeGroupVersion, "mutatingwebhookconfigurations", false, func() runtime.Object { return &admissionv1.MutatingWebhookConfiguration{} }, func() runtime.Object { return &admissionv1.MutatingWebhookConfigurationList{} }, nil, false},
}

// Reviews are not kept; no policy judges one.
var reviewResources = []schema.GroupResource{
	{Group: authenticationv1.GroupName, Resource: "tokenreviews"},
	{Group: authenticationv1.GroupName, Resource: "selfsubjectreviews"},
	{Group: authorizationv1.GroupName, Resource: "subjectaccessreviews"},
	{Group: authorizationv1.GroupName, Resource: "selfsubjectaccessreviews"},
}

var (
	scheme         = newScheme()
	codecs         = serializer.NewCodecFactory(scheme)
	parameterCodec = runtime.NewParameterCodec(scheme)
)

// newScheme has each kind twice, as itself and as the internal version that the handlers work with: there is one version of each.
func newScheme() *runtime.Scheme {
	made := runtime.NewScheme()
	adders := []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, rbacv1.AddToScheme, admissionv1.AddToScheme,
		authenticationv1.AddToScheme, authorizationv1.AddToScheme, addDefaults, addSessionOptions}
	for _, add := range adders {
		if err := add(made); err != nil {
			panic(err)
		}
	}
	metav1.AddToGroupVersion(made, schema.GroupVersion{Version: "v1"})
	versions := sets.New(corev1.SchemeGroupVersion, appsv1.SchemeGroupVersion, rbacv1.SchemeGroupVersion, admissionv1.SchemeGroupVersion,
		authenticationv1.SchemeGroupVersion, authorizationv1.SchemeGroupVersion)
	for version := range versions {
		internal := schema.GroupVersion{Group: version.Group, Version: runtime.APIVersionInternal}
		for kind := range made.KnownTypes(version) {
			object, err := made.New(version.WithKind(kind))
			if err != nil {
				panic(err)
			}
			if _, isOwn := object.(interface{ OpenAPIModelName() string }); isOwn && !isOfEveryVersion(kind) {
				made.AddKnownTypeWithName(internal.WithKind(kind), object)
			}
		}
	}
	return made
}

// isOfEveryVersion tells the kinds of metav1 that every version has.
func isOfEveryVersion(kind string) bool {
	return sets.New("WatchEvent", "ListOptions", "GetOptions", "DeleteOptions", "CreateOptions", "UpdateOptions", "PatchOptions", "Status", "APIVersions", "APIGroupList", "APIGroup", "APIResourceList").Has(kind)
}

// stores are the resources in memory.
type stores struct {
	byName map[string]*memory
}

func newStores() *stores {
	all := &stores{map[string]*memory{}}
	shared := &revision{}
	for _, line := range served {
		group := schema.GroupResource{Group: line.version.Group, Resource: line.name}
		kinds, _, err := scheme.ObjectKinds(line.newObject())
		if err != nil {
			panic(err)
		}
		all.byName[line.name] = &memory{
			TableConvertor: rest.NewDefaultTableConvertor(group), resource: group, kind: kinds[0], namespaced: line.namespaced,
			newObject: line.newObject, newList: line.newList, validate: line.validate, createOnPut: line.createOnPut, revision: shared,
			objects: map[string]runtime.Object{}, broadcaster: watch.NewLongQueueBroadcaster(watchQueue, watch.WaitIfChannelFull),
		}
	}
	return all
}

func (s *stores) all(name string) []runtime.Object {
	store := s.byName[name]
	store.lock.Lock()
	defer store.lock.Unlock()
	return store.matching(func(runtime.Object) bool { return true })
}

func (s *stores) find(name, namespace, object string) runtime.Object {
	return s.byName[name].read(key(namespace, object))
}

// looseDefinitions say of every kind that it is an object of anything: server-side apply then merges by what it finds.
func looseDefinitions(common.ReferenceCallback) map[string]common.OpenAPIDefinition {
	loose := map[string]common.OpenAPIDefinition{}
	for kind := range scheme.AllKnownTypes() {
		name, err := scheme.ToOpenAPIDefinitionName(kind)
		if err != nil {
			continue
		}
		anything := spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}}}
		anything.AddExtension("x-kubernetes-preserve-unknown-fields", true)
		loose[name] = common.OpenAPIDefinition{Schema: anything}
	}
	return loose
}

var longRunningVerbs = sets.NewString("watch", "proxy")
var longRunningSubresources = sets.NewString("attach", "exec", "proxy", "log", "portforward")

func longRunning(request *http.Request, info *genericrequest.RequestInfo) bool {
	return filters.BasicLongRunningRequestCheck(longRunningVerbs, longRunningSubresources)(request, info)
}

func serve(apiServer *server.GenericAPIServer, all *stores, who authenticator.Request, may authorizer.Authorizer) error {
	byVersion := map[schema.GroupVersion]map[string]rest.Storage{
		authenticationv1.SchemeGroupVersion: authenticationReviews(who),
		authorizationv1.SchemeGroupVersion:  authorizationReviews(may),
	}
	for _, line := range served {
		if byVersion[line.version] == nil {
			byVersion[line.version] = map[string]rest.Storage{}
		}
		byVersion[line.version][line.name] = all.byName[line.name]
	}
	pods := all.byName["pods"]
	byVersion[corev1.SchemeGroupVersion]["pods/exec"] = &session{pods, func() runtime.Object { return &corev1.PodExecOptions{} }, may}
	byVersion[corev1.SchemeGroupVersion]["pods/attach"] = &session{pods, func() runtime.Object { return &corev1.PodAttachOptions{} }, may}
	byVersion[corev1.SchemeGroupVersion]["pods/portforward"] = &session{pods, func() runtime.Object { return &corev1.PodPortForwardOptions{} }, may}
	byVersion[corev1.SchemeGroupVersion]["pods/ephemeralcontainers"] = &part{pods}
	byVersion[corev1.SchemeGroupVersion]["serviceaccounts/token"] = &tokenRequests{}
	for _, name := range []string{"namespaces/status", "namespaces/finalize"} {
		byVersion[corev1.SchemeGroupVersion][name] = &part{all.byName["namespaces"]}
	}
	for version, storage := range byVersion {
		info := server.NewDefaultAPIGroupInfo(version.Group, scheme, parameterCodec, codecs)
		info.PrioritizedVersions = []schema.GroupVersion{version}
		info.VersionedResourcesStorageMap[version.Version] = storage
		var err error
		if version.Group == "" {
			err = apiServer.InstallLegacyAPIGroup(server.DefaultLegacyAPIPrefix, &info)
		} else {
			err = apiServer.InstallAPIGroup(&info)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", version, err)
		}
	}
	return nil
}

func seed(all *stores) error {
	put := func(name string, object runtime.Object) error {
		_, err := all.byName[name].Create(context.Background(), object, nil, nil)
		return err
	}
	everyone := []rbacv1.Subject{{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: "system:authenticated"}}
	role := func(name string) rbacv1.RoleRef {
		return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}
	}
	named := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name} }
	any := []string{"*"}
	objects := []struct {
		name   string
		object runtime.Object
	}{
		{"namespaces", &corev1.Namespace{ObjectMeta: named("default")}},
		{"namespaces", &corev1.Namespace{ObjectMeta: named("kube-system")}},
		{"clusterroles", &rbacv1.ClusterRole{ObjectMeta: named("cluster-admin"), Rules: []rbacv1.PolicyRule{
			{APIGroups: any, Resources: any, Verbs: any}, {NonResourceURLs: any, Verbs: any}}}},
		{"clusterroles", &rbacv1.ClusterRole{ObjectMeta: named("system:discovery"), Rules: []rbacv1.PolicyRule{
			{NonResourceURLs: []string{"/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"}, Verbs: []string{"get"}}}}},
		{"clusterroles", &rbacv1.ClusterRole{ObjectMeta: named("system:basic-user"), Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{"authorization.k8s.io", "authentication.k8s.io"}, Resources: []string{"selfsubjectaccessreviews", "selfsubjectreviews"}, Verbs: []string{"create"}}}}},
		{"clusterroles", &rbacv1.ClusterRole{ObjectMeta: named("system:auth-delegator"), Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{"authorization.k8s.io", "authentication.k8s.io"}, Resources: []string{"subjectaccessreviews", "tokenreviews"}, Verbs: []string{"create"}}}}},
		{"clusterrolebindings", &rbacv1.ClusterRoleBinding{ObjectMeta: named("system:discovery"), RoleRef: role("system:discovery"), Subjects: everyone}},
		{"clusterrolebindings", &rbacv1.ClusterRoleBinding{ObjectMeta: named("system:basic-user"), RoleRef: role("system:basic-user"), Subjects: everyone}},
	}
	for _, one := range objects {
		if err := put(one.name, one.object); err != nil {
			return err
		}
	}
	return nil
}
