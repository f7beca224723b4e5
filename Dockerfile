# The one image of broker, webhook, sidecar and nestgate. `node scripts/image.ts` stages its context in
# build/image and builds it; with Docker: `docker build -f Dockerfile build/image`. Nothing runs while it is
# built, so neither npm nor a network is needed inside.
FROM node:24-bookworm-slim AS base

FROM base
LABEL org.opencontainers.image.title="nestgate" \
      org.opencontainers.image.description="Names the process behind every Kubernetes API call of a pod, and decides, holds, records and proves each one" \
      org.opencontainers.image.licenses="Apache-2.0"
# Executable but not readable: the kernel then makes a process of another user than root non-dumpable at
# exec, so that an agent with the sidecar's own user id can read neither its memory nor its environment nor
# its files through /proc.
COPY --from=base --chown=0:0 --chmod=0111 /usr/local/bin/node /usr/local/bin/node
COPY --chown=0:0 . /app/
WORKDIR /app
ENV NODE_ENV=production
USER 65532:65532
ENTRYPOINT ["node", "--disable-sigusr1"]
CMD ["/app/cli/main.js", "--help"]
