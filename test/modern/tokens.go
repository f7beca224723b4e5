package main

import (
	"context"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/rest"
)

// tokenRequests is serviceaccounts/token as kube-apiserver has it (pkg/registry/core/serviceaccount/storage/token.go), but that it signs
// nothing: admission is asked, and the request comes back.
type tokenRequests struct{}

var (
	_ rest.NamedCreater             = &tokenRequests{}
	_ rest.GroupVersionKindProvider = &tokenRequests{}
)

func (t *tokenRequests) New() runtime.Object { return &authenticationv1.TokenRequest{} }
func (t *tokenRequests) Destroy()            {}
func (t *tokenRequests) GroupVersionKind(schema.GroupVersion) schema.GroupVersionKind {
	return authenticationv1.SchemeGroupVersion.WithKind("TokenRequest")
}

func (t *tokenRequests) Create(ctx context.Context, _ string, object runtime.Object, validate rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	if validate != nil {
		if err := validate(ctx, object.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	return object, nil
}
