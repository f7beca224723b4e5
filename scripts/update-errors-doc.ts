/** Writes docs/errors.md from the table of reason codes: `node scripts/update-errors-doc.ts`. A test keeps the two equal. */
import { writeFileSync } from 'node:fs'
import { REASONS } from '../shared/reasons.ts'

const rows = Object.entries(REASONS).map(
  ([code, { status, sentence, remedy }]) => `| \`${code}\` | ${status} | ${sentence} | ${remedy} |`,
)
const text = `# Refusals

Every refusal of Nestgate has one of these codes. Kubernetes clients get it as a \`Status\` object, where the code stands in
\`details.causes[].reason\` as \`nestgate.dev/CODE\` and the message begins with \`nestgate:\`; clients of \`/v1\` get it as
\`application/problem+json\` in \`code\`. The webhook's refusals stand in the message of \`kubectl apply\`. Whoever asks for help should
quote the request id, which is in the message and in the \`Nestgate-Request-Id\` header.

| code | status | what was refused | what to do |
|---|---|---|---|
${rows.join('\n')}

This page is made by \`node scripts/update-errors-doc.ts\` from \`shared/reasons.ts\`.
`
writeFileSync(new URL('../docs/errors.md', import.meta.url), text)
