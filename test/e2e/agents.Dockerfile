# What agents are made of in the end-to-end suite: Node, each kubectl there is, the Python and JavaScript clients
# of Kubernetes, and the scripts of test/e2e/agents. scripts/e2e.ts stages the context.
FROM node:24-bookworm-slim
COPY --chmod=0755 kubectl-old kubectl-new /usr/local/bin/
COPY --chmod=0755 kubectls /usr/local/bin/
COPY python /
COPY node_modules /agents/node_modules
COPY agents /agents
ENV HOME=/tmp
ENTRYPOINT []
CMD ["sleep", "infinity"]
