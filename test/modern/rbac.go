package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericrequest "k8s.io/apiserver/pkg/endpoints/request"
)

// rbac evaluates the roles and bindings in memory by the rules of the RBAC authorizer (plugin/pkg/auth/authorizer/rbac).
type rbac struct {
	stores *stores
}

func subjectIs(subject rbacv1.Subject, who user.Info, bindingNamespace string) bool {
	switch subject.Kind {
	case rbacv1.UserKind:
		return subject.Name == who.GetName()
	case rbacv1.GroupKind:
		return slices.Contains(who.GetGroups(), subject.Name)
	case rbacv1.ServiceAccountKind:
		namespace := subject.Namespace
		if namespace == "" {
			namespace = bindingNamespace
		}
		return namespace != "" && serviceaccount.MatchesUsername(namespace, subject.Name, who.GetName())
	}
	return false
}

func bound(subjects []rbacv1.Subject, who user.Info, namespace string) bool {
	return slices.ContainsFunc(subjects, func(subject rbacv1.Subject) bool { return subjectIs(subject, who, namespace) })
}

func has(list []string, value string) bool {
	return slices.Contains(list, "*") || slices.Contains(list, value)
}

func resourceIs(resources []string, resource, subresource string) bool {
	if subresource == "" {
		return has(resources, resource)
	}
	return has(resources, resource+"/"+subresource) || slices.Contains(resources, "*/"+subresource)
}

func pathIs(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		prefix, open := strings.CutSuffix(pattern, "*")
		return pattern == path || (open && strings.HasPrefix(path, prefix))
	})
}

func ruleAllows(rule rbacv1.PolicyRule, asked authorizer.Attributes) bool {
	if !has(rule.Verbs, asked.GetVerb()) {
		return false
	}
	if !asked.IsResourceRequest() {
		return pathIs(rule.NonResourceURLs, asked.GetPath())
	}
	return has(rule.APIGroups, asked.GetAPIGroup()) &&
		resourceIs(rule.Resources, asked.GetResource(), asked.GetSubresource()) &&
		(len(rule.ResourceNames) == 0 || slices.Contains(rule.ResourceNames, asked.GetName()))
}

func (r *rbac) rulesOf(ref rbacv1.RoleRef, namespace string) []rbacv1.PolicyRule {
	if ref.Kind == "ClusterRole" {
		if role, ok := r.stores.find("clusterroles", "", ref.Name).(*rbacv1.ClusterRole); ok {
			return role.Rules
		}
		return nil
	}
	if role, ok := r.stores.find("roles", namespace, ref.Name).(*rbacv1.Role); ok {
		return role.Rules
	}
	return nil
}

// Authorize implements authorizer.Authorizer.
func (r *rbac) Authorize(_ context.Context, asked authorizer.Attributes) (authorizer.Decision, string, error) {
	allows := func(rule rbacv1.PolicyRule) bool { return ruleAllows(rule, asked) }
	for _, item := range r.stores.all("clusterrolebindings") {
		binding, ok := item.(*rbacv1.ClusterRoleBinding)
		if ok && bound(binding.Subjects, asked.GetUser(), "") && slices.ContainsFunc(r.rulesOf(binding.RoleRef, ""), allows) {
			return authorizer.DecisionAllow, "RBAC: allowed by ClusterRoleBinding " + binding.Name, nil
		}
	}
	if asked.GetNamespace() == "" {
		return authorizer.DecisionNoOpinion, "", nil
	}
	for _, item := range r.stores.all("rolebindings") {
		binding, ok := item.(*rbacv1.RoleBinding)
		if ok && binding.Namespace == asked.GetNamespace() && bound(binding.Subjects, asked.GetUser(), binding.Namespace) &&
			slices.ContainsFunc(r.rulesOf(binding.RoleRef, binding.Namespace), allows) {
			return authorizer.DecisionAllow, "RBAC: allowed by RoleBinding " + binding.Namespace + "/" + binding.Name, nil
		}
	}
	return authorizer.DecisionNoOpinion, "", nil
}

// rulesOfUser lists what somebody may do in a namespace ("" for everywhere), whatever binding says so.
func (r *rbac) rulesOfUser(who user.Info, namespace string) []rbacv1.PolicyRule {
	var rules []rbacv1.PolicyRule
	for _, item := range r.stores.all("clusterrolebindings") {
		if binding, ok := item.(*rbacv1.ClusterRoleBinding); ok && bound(binding.Subjects, who, "") {
			rules = append(rules, r.rulesOf(binding.RoleRef, "")...)
		}
	}
	for _, item := range r.stores.all("rolebindings") {
		if binding, ok := item.(*rbacv1.RoleBinding); ok && namespace != "" && binding.Namespace == namespace && bound(binding.Subjects, who, namespace) {
			rules = append(rules, r.rulesOf(binding.RoleRef, namespace)...)
		}
	}
	return rules
}

// covers tells whether every single right of a rule is in others.
func covers(own []rbacv1.PolicyRule, wanted rbacv1.PolicyRule) bool {
	names := wanted.ResourceNames
	if len(names) == 0 {
		names = []string{""}
	}
	for _, verb := range wanted.Verbs {
		for _, group := range wanted.APIGroups {
			for _, resource := range wanted.Resources {
				for _, name := range names {
					base, sub, _ := strings.Cut(resource, "/")
					asked := authorizer.AttributesRecord{Verb: verb, APIGroup: group, Resource: base, Subresource: sub, Name: name, ResourceRequest: true}
					if !slices.ContainsFunc(own, func(rule rbacv1.PolicyRule) bool { return ruleAllows(rule, asked) }) {
						return false
					}
				}
			}
		}
	}
	return len(wanted.NonResourceURLs) == 0
}

// mayGive is kube-apiserver's rule for roles (pkg/registry/rbac/role/policybased): who writes one must have the verb escalate, by any
// authorizer, or all its rights already, by RBAC under the name that asks.
func (r *rbac) mayGive(ctx context.Context, may authorizer.Authorizer, object runtime.Object) error {
	role, ok := object.(*rbacv1.Role)
	who, known := genericrequest.UserFrom(ctx)
	if !ok || !known || slices.Contains(who.GetGroups(), user.SystemPrivilegedGroup) {
		return nil
	}
	asked := authorizer.AttributesRecord{User: who, Verb: "escalate", Namespace: role.Namespace, Name: role.Name, APIGroup: rbacv1.GroupName,
		APIVersion: "v1", Resource: "roles", ResourceRequest: true}
	if decision, _, _ := may.Authorize(ctx, asked); decision == authorizer.DecisionAllow {
		return nil
	}
	own := r.rulesOfUser(who, role.Namespace)
	for _, rule := range role.Rules {
		if !covers(own, rule) {
			return apierrors.NewForbidden(rbacv1.Resource("roles"), role.Name, fmt.Errorf("user %q is attempting to grant RBAC permissions not currently held", who.GetName()))
		}
	}
	return nil
}
