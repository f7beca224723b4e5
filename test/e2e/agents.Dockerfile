# What agents are made of in the end-to-end suite: Node, the oldest and the newest kubectl, and the scripts of
# test/e2e/agents. scripts/e2e.ts stages the context.
FROM node:24-bookworm-slim
COPY --chmod=0755 kubectl-old kubectl-new /usr/local/bin/
COPY agents /agents
ENV HOME=/tmp
ENTRYPOINT []
CMD ["sleep", "infinity"]
