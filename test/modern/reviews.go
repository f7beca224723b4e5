package main

import (
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericrequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
)

// review answers a POST and keeps nothing.
type review struct {
	name      string
	newObject func() runtime.Object
	answer    func(ctx context.Context, object runtime.Object) error
}

func (r *review) New() runtime.Object     { return r.newObject() }
func (r *review) Destroy()                {}
func (r *review) NamespaceScoped() bool   { return false }
func (r *review) GetSingularName() string { return r.name }

func (r *review) Create(ctx context.Context, object runtime.Object, validate rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	if validate != nil {
		if err := validate(ctx, object.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	return object, r.answer(ctx, object)
}

func infoOf(who user.Info) authenticationv1.UserInfo {
	extra := map[string]authenticationv1.ExtraValue{}
	for key, values := range who.GetExtra() {
		extra[key] = values
	}
	return authenticationv1.UserInfo{Username: who.GetName(), UID: who.GetUID(), Groups: who.GetGroups(), Extra: extra}
}

func authenticationReviews(who authenticator.Request) map[string]rest.Storage {
	return map[string]rest.Storage{
		"tokenreviews": &review{"tokenreview", func() runtime.Object { return &authenticationv1.TokenReview{} }, func(ctx context.Context, object runtime.Object) error {
			asked, ok := object.(*authenticationv1.TokenReview)
			if !ok {
				return apierrors.NewBadRequest(fmt.Sprintf("not a TokenReview: %T", object))
			}
			found, ok, err := whoHas(ctx, who, asked.Spec.Token)
			asked.Status = authenticationv1.TokenReviewStatus{Authenticated: ok}
			if err != nil {
				asked.Status.Error = err.Error()
			}
			if ok {
				asked.Status.User = infoOf(found.User)
				asked.Status.Audiences = asked.Spec.Audiences
			}
			return nil
		}},
		"selfsubjectreviews": &review{"selfsubjectreview", func() runtime.Object { return &authenticationv1.SelfSubjectReview{} }, func(ctx context.Context, object runtime.Object) error {
			asked, ok := object.(*authenticationv1.SelfSubjectReview)
			if caller, found := genericrequest.UserFrom(ctx); ok && found {
				asked.Status.UserInfo = infoOf(caller)
			}
			return nil
		}},
	}
}

func attributes(who user.Info, resource *authorizationv1.ResourceAttributes, path *authorizationv1.NonResourceAttributes) authorizer.AttributesRecord {
	if resource == nil {
		return authorizer.AttributesRecord{User: who, Verb: path.Verb, Path: path.Path}
	}
	return authorizer.AttributesRecord{User: who, Verb: resource.Verb, Namespace: resource.Namespace, APIGroup: resource.Group, APIVersion: resource.Version,
		Resource: resource.Resource, Subresource: resource.Subresource, Name: resource.Name, ResourceRequest: true}
}

func judge(ctx context.Context, may authorizer.Authorizer, asked authorizer.Attributes) authorizationv1.SubjectAccessReviewStatus {
	decision, reason, err := may.Authorize(ctx, asked)
	status := authorizationv1.SubjectAccessReviewStatus{Allowed: decision == authorizer.DecisionAllow, Denied: decision == authorizer.DecisionDeny, Reason: reason}
	if err != nil {
		status.EvaluationError = err.Error()
	}
	return status
}

func authorizationReviews(may authorizer.Authorizer) map[string]rest.Storage {
	return map[string]rest.Storage{
		"subjectaccessreviews": &review{"subjectaccessreview", func() runtime.Object { return &authorizationv1.SubjectAccessReview{} }, func(ctx context.Context, object runtime.Object) error {
			asked, ok := object.(*authorizationv1.SubjectAccessReview)
			if !ok || (asked.Spec.ResourceAttributes == nil) == (asked.Spec.NonResourceAttributes == nil) {
				return apierrors.NewBadRequest("exactly one of resourceAttributes and nonResourceAttributes")
			}
			extra := map[string][]string{}
			for key, values := range asked.Spec.Extra {
				extra[key] = values
			}
			who := &user.DefaultInfo{Name: asked.Spec.User, UID: asked.Spec.UID, Groups: asked.Spec.Groups, Extra: extra}
			asked.Status = judge(ctx, may, attributes(who, asked.Spec.ResourceAttributes, asked.Spec.NonResourceAttributes))
			return nil
		}},
		"selfsubjectaccessreviews": &review{"selfsubjectaccessreview", func() runtime.Object { return &authorizationv1.SelfSubjectAccessReview{} }, func(ctx context.Context, object runtime.Object) error {
			asked, ok := object.(*authorizationv1.SelfSubjectAccessReview)
			caller, found := genericrequest.UserFrom(ctx)
			if !ok || !found || (asked.Spec.ResourceAttributes == nil) == (asked.Spec.NonResourceAttributes == nil) {
				return apierrors.NewBadRequest("exactly one of resourceAttributes and nonResourceAttributes")
			}
			asked.Status = judge(ctx, may, attributes(caller, asked.Spec.ResourceAttributes, asked.Spec.NonResourceAttributes))
			return nil
		}},
	}
}
