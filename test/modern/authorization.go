package main

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/load"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	authorizationcel "k8s.io/apiserver/pkg/authorization/cel"
	"k8s.io/apiserver/pkg/authorization/union"
	webhookutil "k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/apiserver/plugin/pkg/authorizer/webhook"
	"k8s.io/apiserver/plugin/pkg/authorizer/webhook/metrics"
)

// What kube-apiserver knows, and may be named more than once (pkg/kubeapiserver/authorizer/modes).
var (
	knownTypes      = sets.New("AlwaysAllow", "AlwaysDeny", "ABAC", "Webhook", "RBAC", "Node")
	repeatableTypes = sets.New("Webhook")
)

func newWebhook(name string, settings *apiserver.WebhookConfiguration, compiler authorizationcel.Compiler) (authorizer.Authorizer, error) {
	if settings.ConnectionInfo.Type != apiserver.AuthorizationWebhookConnectionInfoTypeKubeConfigFile {
		return nil, fmt.Errorf("connectionInfo.type %q is not tried here", settings.ConnectionInfo.Type)
	}
	client, err := webhookutil.LoadKubeconfig(*settings.ConnectionInfo.KubeConfigFile, nil)
	if err != nil {
		return nil, err
	}
	client.Timeout = settings.Timeout.Duration
	onError := authorizer.DecisionDeny
	if settings.FailurePolicy == apiserver.FailurePolicyNoOpinion {
		onError = authorizer.DecisionNoOpinion
	}
	authorizedTTL, unauthorizedTTL := settings.AuthorizedTTL.Duration, settings.UnauthorizedTTL.Duration
	if !settings.CacheAuthorizedRequests {
		authorizedTTL = time.Duration(0)
	}
	if !settings.CacheUnauthorizedRequests {
		unauthorizedTTL = time.Duration(0)
	}
	return webhook.New(client, settings.SubjectAccessReviewVersion, authorizedTTL, unauthorizedTTL, *webhook.DefaultRetryBackoff(),
		onError, settings.MatchConditions, name, metrics.NoopAuthorizerMetrics{}, compiler)
}

// newAuthorizer is put together as kube-apiserver's (pkg/kubeapiserver/authorizer, newForConfig). Node, of which there is none here,
// has no opinion.
func newAuthorizer(file string, roles authorizer.Authorizer) (authorizer.Authorizer, error) {
	privileged := authorizerfactory.NewPrivilegedGroups(user.SystemPrivilegedGroup)
	if file == "" {
		return union.New(privileged, roles), nil
	}
	configuration, err := load.LoadFromFile(file)
	if err != nil {
		return nil, err
	}
	compiler := authorizationcel.NewDefaultCompiler()
	if err := validation.ValidateAuthorizationConfiguration(compiler, field.NewPath(""), configuration, knownTypes, repeatableTypes).ToAggregate(); err != nil {
		return nil, err
	}
	all := []authorizer.Authorizer{privileged}
	for _, one := range configuration.Authorizers {
		switch one.Type {
		case "Node":
		case "RBAC":
			all = append(all, roles)
		case apiserver.TypeWebhook:
			asked, err := newWebhook(one.Name, one.Webhook, compiler)
			if err != nil {
				return nil, err
			}
			all = append(all, asked)
		default:
			return nil, fmt.Errorf("authorizer type %q is not tried here", one.Type)
		}
	}
	return union.New(all...), nil
}
