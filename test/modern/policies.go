package main

import (
	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/version"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/cel/environment"
)

func orDefault[T any](value **T, fallback T) {
	if *value == nil {
		*value = &fallback
	}
}

func defaultRules(rules []admissionv1.NamedRuleWithOperations) {
	for i := range rules {
		orDefault(&rules[i].Scope, admissionv1.AllScopes)
	}
}

func defaultMatch(match *admissionv1.MatchResources) {
	orDefault(&match.MatchPolicy, admissionv1.Equivalent)
	orDefault(&match.NamespaceSelector, metav1.LabelSelector{})
	orDefault(&match.ObjectSelector, metav1.LabelSelector{})
	defaultRules(match.ResourceRules)
	defaultRules(match.ExcludeResourceRules)
}

func defaultWebhook(hook *admissionv1.ValidatingWebhook) {
	orDefault(&hook.FailurePolicy, admissionv1.Fail)
	orDefault(&hook.MatchPolicy, admissionv1.Equivalent)
	orDefault(&hook.NamespaceSelector, metav1.LabelSelector{})
	orDefault(&hook.ObjectSelector, metav1.LabelSelector{})
	orDefault(&hook.TimeoutSeconds, 10)
	for i := range hook.Rules {
		orDefault(&hook.Rules[i].Scope, admissionv1.AllScopes)
	}
}

// addDefaults has those of pkg/apis/admissionregistration/v1/defaults.go that what is tried here can meet.
func addDefaults(made *runtime.Scheme) error {
	made.AddTypeDefaultingFunc(&admissionv1.ValidatingAdmissionPolicy{}, func(object any) {
		if policy, ok := object.(*admissionv1.ValidatingAdmissionPolicy); ok {
			orDefault(&policy.Spec.FailurePolicy, admissionv1.Fail)
			if policy.Spec.MatchConstraints != nil {
				defaultMatch(policy.Spec.MatchConstraints)
			}
		}
	})
	made.AddTypeDefaultingFunc(&admissionv1.ValidatingAdmissionPolicyBinding{}, func(object any) {
		if binding, ok := object.(*admissionv1.ValidatingAdmissionPolicyBinding); ok && binding.Spec.MatchResources != nil {
			defaultMatch(binding.Spec.MatchResources)
		}
	})
	made.AddTypeDefaultingFunc(&admissionv1.ValidatingWebhookConfiguration{}, func(object any) {
		if hooks, ok := object.(*admissionv1.ValidatingWebhookConfiguration); ok {
			for i := range hooks.Webhooks {
				defaultWebhook(&hooks.Webhooks[i])
			}
		}
	})
	return nil
}

// firstWithPolicies is the first release that serves policies as v1.
var firstWithPolicies = version.MajorMinor(1, 30)

// policyErrors refuses what kube-apiserver's validation would refuse for an expression, in this release or in the first with policies.
func policyErrors(object runtime.Object) field.ErrorList {
	policy, ok := object.(*admissionv1.ValidatingAdmissionPolicy)
	if !ok {
		return nil
	}
	return append(compileErrors(policy, environment.DefaultCompatibilityVersion()), compileErrors(policy, firstWithPolicies)...)
}

// compileErrors compiles every expression in the environment that a release has for new expressions.
func compileErrors(policy *admissionv1.ValidatingAdmissionPolicy, release *version.Version) field.ErrorList {
	root := field.NewPath("spec").Key(release.String())
	compiler, err := plugincel.NewCompositedCompiler(environment.MustBaseEnvSet(release))
	if err != nil {
		return field.ErrorList{field.InternalError(root, err)}
	}
	full := plugincel.OptionalVariableDeclarations{HasParams: policy.Spec.ParamKind != nil, HasAuthorizer: true}
	plain := plugincel.OptionalVariableDeclarations{HasParams: policy.Spec.ParamKind != nil}
	var errs field.ErrorList
	compile := func(at *field.Path, expression plugincel.ExpressionAccessor, options plugincel.OptionalVariableDeclarations) {
		if result := compiler.CompileCELExpression(expression, options, environment.NewExpressions); result.Error != nil {
			errs = append(errs, field.Invalid(at, expression.GetExpression(), result.Error.Error()))
		}
	}
	if policy.Spec.MatchConstraints == nil || len(policy.Spec.MatchConstraints.ResourceRules) == 0 {
		errs = append(errs, field.Required(root.Child("matchConstraints", "resourceRules"), ""))
	}
	for i, variable := range policy.Spec.Variables {
		result := compiler.CompileAndStoreVariable(&validating.Variable{Name: variable.Name, Expression: variable.Expression}, full, environment.NewExpressions)
		if result.Error != nil {
			errs = append(errs, field.Invalid(root.Child("variables").Index(i), variable.Expression, result.Error.Error()))
		}
	}
	for i := range policy.Spec.MatchConditions {
		compile(root.Child("matchConditions").Index(i), (*matchconditions.MatchCondition)(&policy.Spec.MatchConditions[i]), full)
	}
	for i, one := range policy.Spec.Validations {
		at := root.Child("validations").Index(i)
		compile(at, &validating.ValidationCondition{Expression: one.Expression}, full)
		if one.MessageExpression != "" {
			compile(at, &validating.MessageExpressionCondition{MessageExpression: one.MessageExpression}, plain)
		}
	}
	for i, one := range policy.Spec.AuditAnnotations {
		compile(root.Child("auditAnnotations").Index(i), &validating.AuditAnnotationCondition{ValueExpression: one.ValueExpression}, full)
	}
	return errs
}
