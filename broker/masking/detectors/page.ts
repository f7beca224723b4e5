/** The page docs/detectors.md, made of the table. */
import { DETECTORS } from './table.ts'

/** The whole page in Markdown. */
export function detectorsPage(): string {
  const rows = DETECTORS.map(({ id, finds }) => `| \`${id}\` | ${finds} |`)
  return `# Secrets in output

What a session prints, reads or logs goes through these detectors before it is written to a recording, unless policy says \`mask: false\`.
Each byte of what one finds is replaced by \`*\`, so that the layout stays; line ends stay too. The recording has a marker with the name of
the detector.

**This is no guarantee.** It finds what looks like a secret: a form that is known, or a name that says so. It does not find a password that
stands alone, one that is shorter than six bytes, a secret that is encoded, compressed, split over lines or printed letter by letter, or
one whose name is broken by cursor movements. Values below \`data:\` of a Secret are found by their names (\`password\`, \`token\`, …) or by
what they begin with (keys, JOSE tokens, registry logins, Helm releases), not because they stand there. It also masks what is none:
\`password: required-length\` looks like a secret. Who may read recordings is decided by roles, not by this.

A value that follows a name is none where it is a reference (\`$NAME\`, \`\${NAME}\`, \`{{ … }}\`), a path, \`<…>\`, \`true\`, \`false\`, \`null\`,
\`none\`, or asterisks; behind \`secret:\`, \`token:\` and \`key:\` a single lower-case word is none either. At most 4,096 bytes of a value are
masked (keys and tokens have longer bounds), so that a single word cannot hide the rest of a session.

| detector | finds |
|---|---|
${rows.join('\n')}

This page is made by \`node scripts/update-detectors-doc.ts\` from \`broker/masking/detectors/\`.
`
}
