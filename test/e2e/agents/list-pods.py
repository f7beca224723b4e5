"""An in-cluster client as its authors write it: lists the pods of its own namespace. Knows nothing of Nestgate."""
from kubernetes import client, config

config.load_incluster_config()
with open('/var/run/secrets/kubernetes.io/serviceaccount/namespace') as file:
    namespace = file.read()
for pod in client.CoreV1Api().list_namespaced_pod(namespace).items:
    print(pod.metadata.name)
