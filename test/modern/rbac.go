package main

import (
	"context"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
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
