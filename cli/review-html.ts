/** An access report as one page: what matters first, everything about each principal after it. */
import type { AccessReport, Principal } from '../shared/access-review-wire.ts'
import { escapeHtml, html, Markup, page, table } from './html.ts'
import type { Section } from './html.ts'
import {
  appliesText,
  heldText,
  isUnused,
  reviewsText,
  ruleText,
  scopeText,
  tallyText,
  unusedText,
  whoText,
} from './review-texts.ts'

const NOTHING = html`<p>None.</p> `

/** The page. */
export function reportHtml(report: AccessReport): string {
  const { since, until, scope, madeAt, madeBy } = report
  const intro = html`<p>
    ${since} to ${until}. Scope: ${scopeText(scope)}. Made ${madeAt} for ${madeBy}.
  </p>`
  return page('Access report', intro, [
    { id: 'summary', title: 'Summary', body: summary(report) },
    {
      id: 'population',
      title: 'What was read',
      body: populationHtml(report.population, report.policy),
    },
    { id: 'unused', title: 'Unused access', body: unused(report) },
    { id: 'held', title: 'Held requests', body: held(report, false) },
    { id: 'break-glass', title: 'Break-glass', body: held(report, true) },
    { id: 'denied', title: 'Denied requests', body: denied(report) },
    { id: 'principals', title: 'Principals', body: principals(report) },
  ] satisfies Section[])
}

/** Notes of a report. */
export function notesHtml(notes: readonly string[]): Markup {
  return html`${notes.map((note) => html`<p class="note">${note}</p> `)}`
}

function summary({ summary: sum, notes, unusedRules }: AccessReport): Markup {
  const rows = [
    ['Principals', `${sum.principals}, of which ${sum.silent} made no request`],
    ['Requests', tallyText(sum.requests)],
    ['Requests that could not be read', sum.unread],
    ['Pairs of principal and rule', `${sum.access}, of which ${sum.unusedAccess} were not used`],
    ['Rules that nobody used', unusedRules.length],
    ['Break-glass requests without a review', sum.openReviews],
  ]
  return html`${notesHtml(notes)}${table('In short', ['What', 'How many'], rows)}`
}

/** The population, and by what its completeness is shown. */
export function populationHtml(
  {
    origin,
    size,
    root,
    note,
    from,
    to,
    read,
    matched,
    unreadable,
    shortened,
  }: AccessReport['population'],
  policy?: AccessReport['policy'],
): Markup {
  const rows: (readonly [string, string | number])[] = [
    ['Ledger', origin],
    ['Size of the checkpoint', size],
    ['Root of the checkpoint', root],
    ['Entries read', `${read}, from ${from} to ${to}, which is not included`],
    ['Of these, in period and scope', matched],
    ['Of no known form', unreadable],
    ['With texts cut to fit', shortened],
  ]
  if (policy !== undefined) {
    rows.push([
      'Policy, by which standing access is told',
      `${policy.digest} (${policy.rules} rules)`,
    ])
    for (const { digest, requests } of policy.decided)
      rows.push(['Policy that decided in the period', `${digest} (${requests} requests)`])
  }
  return html`${table('Population', ['What', 'Value'], rows)}
    <p>
      Whoever exports the entries of this range, and verifies them against this checkpoint, has
      everything that the counts were made of:
    </p>
    <pre>${new Markup(note.split('\n').map(escapeHtml).join('\n'))}</pre>`
}

function unused({ principals: all, unusedRules }: AccessReport): Markup {
  const pairs = all.flatMap((one) =>
    one.access
      .filter(isUnused)
      .map((row) => [whoText(one), row.rule, row.effect, appliesText(row), ruleText(row)]),
  )
  const rules = unusedRules.map((rule) => [rule.rule, rule.effect, rule.principals, ruleText(rule)])
  if (pairs.length + rules.length === 0) return NOTHING
  return html`${table('Rules that nobody used', ['Rule', 'Effect', 'Applies to', 'About'], rules)}
  ${table('Access that its principal did not use', ['Principal', 'Rule', 'Effect', 'Applies', 'About'], pairs)}`
}

function held({ principals: all }: AccessReport, breakGlass: boolean): Markup {
  const rows = all.flatMap((one) => heldRows(one, breakGlass).map((row) => [...row, whoText(one)]))
  if (rows.length === 0) return NOTHING
  const caption = breakGlass
    ? 'Requests that went ahead without approval'
    : 'Requests that waited for people'
  return table(caption, ['Request', 'When', 'What', 'Rules', 'State', 'People', 'Principal'], rows)
}

function heldRows(one: Principal, breakGlass: boolean): (readonly string[])[] {
  return one.held
    .filter((request) => request.breakGlass === breakGlass)
    .map((request) => [
      ...[request.requestId, request.at, heldText(request), request.rules.join(', ')],
      ...[request.state, reviewsText(request)],
    ])
}

function denied({ principals: all }: AccessReport): Markup {
  const rows = all.flatMap((one) =>
    one.uses
      .filter((use) => use.denied > 0)
      .map((use) => [
        ...[whoText(one), use.cluster, use.namespace, use.verb, use.resource],
        ...[use.actions.join(', '), use.denied, use.last ?? ''],
      ]),
  )
  if (rows.length === 0) return NOTHING
  return table(
    'Requests that were refused',
    ['Principal', 'Cluster', 'Namespace', 'Verb', 'Resource', 'Actions', 'Denied', 'Last asked'],
    rows,
  )
}

function principals({ principals: all }: AccessReport): Markup {
  if (all.length === 0) return NOTHING
  const rows = all.map((one, at) => [
    html`<a href="#p${at + 1}">${whoText(one)}</a>`,
    tallyText(one.requests),
    ...[one.requests.last ?? 'never seen', one.access.length, one.access.filter(isUnused).length],
  ])
  const overview = table(
    'All principals',
    ['Principal', 'Requests', 'Last seen', 'Rules', 'Unused'],
    rows,
  )
  return html`${overview}${all.map((one, at) => principal(one, `p${at + 1}`))}`
}

function principal(one: Principal, id: string): Markup {
  const { owners, tokens, limits, requests, unread, removed } = one
  const about = [
    ['Requests', tallyText(requests)],
    ['First and last', `${requests.first ?? 'never'} to ${requests.last ?? 'never'}`],
    ['Could not be read', unread === 0 ? '' : String(unread)],
    ['Owners', owners.join(', ')],
    ['Tokens of', tokens.join(', ')],
    ['Denied by', limits.join(', ')],
    [
      'By rules that are gone',
      removed.map(({ rule, uses }) => `${rule} (${tallyText(uses)})`).join(', '),
    ],
  ].filter(([, value]) => value !== '')
  const access = one.access.map((row) => [
    ...[row.rule, row.effect, appliesText(row), tallyText(row.uses), row.uses.last ?? ''],
    ...[row.approvers.join(', '), unusedText(row), ruleText(row)],
  ])
  const uses = one.uses.map((use) => [
    ...[use.cluster, use.namespace, use.verb, use.resource, use.actions.join(', ')],
    ...[tallyText(use), use.first ?? '', use.last ?? ''],
  ])
  return html`<h3 id="${id}">${whoText(one)}</h3>
    ${notesHtml(one.cut)}${table('In short', ['What', 'Value'], about)}
    ${table(
      'What it could do',
      ['Rule', 'Effect', 'Applies', 'Used', 'Last', 'Approved by', 'Not used', 'About'],
      access,
    )}${table(
      'What it did',
      ['Cluster', 'Namespace', 'Verb', 'Resource', 'Actions', 'Requests', 'First', 'Last'],
      uses,
    )}`
}
