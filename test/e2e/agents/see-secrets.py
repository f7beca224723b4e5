"""What the Python client of Kubernetes sees of a namespace, unchanged: objects, a list, a watch, a log. Prints all of it."""
import sys

from kubernetes import client, config, watch

config.load_incluster_config()
namespace, secret, config_map, deployment, pod = sys.argv[1:6]
core, apps = client.CoreV1Api(), client.AppsV1Api()

print(core.read_namespaced_secret(secret, namespace))
print(core.list_namespaced_secret(namespace))
print(core.read_namespaced_config_map(config_map, namespace))
print(apps.read_namespaced_deployment(deployment, namespace))
print(core.read_namespaced_pod_log(pod, namespace))
for event in watch.Watch().stream(core.list_namespaced_secret, namespace, timeout_seconds=2):
    print(event['type'], event['object'])
print(core.patch_namespaced_secret(secret, namespace, {'metadata': {'labels': {'by': 'python'}}}))
print('done')
