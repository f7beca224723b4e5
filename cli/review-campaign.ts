/** `nestgate review campaign`: people decide on each item of an access report, and sign. */
import { readFile } from 'node:fs/promises'
import { Option } from 'commander'
import type { Command } from 'commander'
import { parse } from 'yaml'
import { asOpened, itemsDigest } from '../shared/access-review-digest.ts'
import {
  campaignItemSchema,
  campaignItemsSchema,
  campaignListSchema,
  campaignSchema,
  MAX_ITEMS_PAGE,
  openCampaignSchema,
  VERDICTS_OF_ITEMS,
} from '../shared/access-review-wire.ts'
import type { Campaign, CampaignItem, OpenCampaign } from '../shared/access-review-wire.ts'
import { messageOf } from '../shared/errors.ts'
import { policyStatusSchema } from '../shared/wire.ts'
import type { BrokerClient } from './client.ts'
import { plain, toDetails, toJson, toTable } from './output.ts'
import type { Runner } from './program.ts'
import { addFormat, addPeriod, deliver, periodOf, scopeOf, slow, timeOf, whole } from './review.ts'
import { campaignHtml } from './review-campaign-html.ts'
import { campaignCsv } from './review-csv.ts'
import { decisionText, scopeText, tallyText, whoText } from './review-texts.ts'
import { UsageError } from './settings.ts'

/** Ids stand in paths. */
const ID = /^[0-9a-f-]{1,64}$/

type Options = Readonly<Record<string, unknown>>

/** Adds the commands. */
export function addCampaigns(review: Command, runner: Runner): void {
  const campaign = review
    .command('campaign')
    .description('have people decide on access, with reasons, and sign')
  addOpen(campaign, runner)
  campaign
    .command('list')
    .description('list campaigns, the oldest first')
    .action(() =>
      runner.call(async (client, format) => {
        const items = await allCampaigns(client)
        if (format === 'json') return toJson({ items })
        return items.length === 0 ? 'No campaigns.' : toTable(LIST_HEADINGS, items.map(listRow))
      }),
    )
  addShow(campaign, runner)
  addDecide(campaign, runner)
  addRemediated(campaign, runner)
  addClosing(campaign, runner, 'sign-off', 'sign a campaign of which everything is decided').option(
    '--outstanding',
    'although revocations are not carried out yet',
  )
  addClosing(campaign, runner, 'cancel', 'end a campaign without signing it')
  addReport(campaign, runner)
}

const LIST_HEADINGS = ['ID', 'STATE', 'TITLE', 'OPENED', 'BY', 'DECIDED']
const ITEM_HEADINGS = [
  'ITEM',
  'PRINCIPAL',
  'RULE',
  'EFFECT',
  'USED',
  'LAST',
  'REVIEWERS',
  'DECISION',
]

function listRow({ id, state, title, openedAt, openedBy, counts }: Campaign): readonly string[] {
  return [id, state, title, openedAt, openedBy, `${decidedOf(counts)} of ${counts.items}`]
}

function itemRow(item: CampaignItem): readonly string[] {
  const { id, principal, access, reviewers } = item
  return [
    ...[id, whoText(principal), access.rule, access.effect, tallyText(access.uses)],
    ...[access.uses.last ?? 'never', reviewers.join(', '), decisionText(item)],
  ]
}

function decidedOf({ certify, revoke, exception }: Campaign['counts']): number {
  return certify + revoke + exception
}

function addOpen(parent: Command, runner: Runner): void {
  const command = addPeriod(parent.command('open'))
    .description('make a campaign of an access report: an item for each principal and rule')
    .requiredOption('--title <text>', 'what it is')
    .requiredOption('--reviewer <names...>', 'who decides: names of people, or group:NAME')
    .option(
      '--assign <file>',
      'YAML or JSON list of {agent, subject, rule, reviewers}; the first that fits an item decides whose it is',
    )
  command.action(() =>
    runner.call(async (client, format) => {
      const options: Options = command.opts()
      const body = openCampaignSchema.safeParse({
        ...{ title: options['title'], reviewers: options['reviewer'] },
        ...{ ...periodOf(options, runner.now()), scope: scopeOf(options) },
        ...(await assignmentsOf(options['assign'])),
      } satisfies Record<keyof OpenCampaign, unknown>)
      if (!body.success) {
        const issues = body.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`)
        throw new UsageError(issues.join('; '))
      }
      const opened = whole(await client.post(slow(campaignSchema), 'v1/campaigns', body.data))
      return format === 'json' ? toJson(opened) : campaignText(opened)
    }),
  )
}

async function assignmentsOf(file: unknown): Promise<{ assign: unknown }> {
  if (typeof file !== 'string') return { assign: undefined }
  try {
    const assign: unknown = parse(await readFile(file, 'utf8'))
    return { assign }
  } catch (error) {
    throw new UsageError(`cannot read the assignments: ${messageOf(error)}`)
  }
}

function addShow(parent: Command, runner: Runner): void {
  const command = parent
    .command('show')
    .description('show a campaign and its items')
    .argument('<id>', 'id of the campaign')
    .addOption(new Option('--state <state>', 'only these items').choices(['open', 'decided']))
    .option('--mine', 'only items that are given to you')
  command.action((id: string) =>
    runner.call(async (client, format) => {
      const options: Options = command.opts()
      const query = new URLSearchParams()
      if (typeof options['state'] === 'string') query.set('state', options['state'])
      if (options['mine'] === true) query.set('mine', 'true')
      const campaign = await client.get(campaignSchema, pathOf(id))
      const items = await allItems(client, id, query)
      if (format === 'json') return toJson({ ...campaign, items })
      const table = items.length === 0 ? 'No items.' : toTable(ITEM_HEADINGS, items.map(itemRow))
      return `${campaignText(campaign)}\n\n${table}`
    }),
  )
}

function addDecide(parent: Command, runner: Runner): void {
  const command = parent
    .command('decide')
    .description('decide on an item; there is no second decision')
    .argument('<id>', 'id of the campaign')
    .argument('<item>', 'id of the item')
    .addOption(
      new Option('--verdict <verdict>', 'what is to become of it')
        .choices(VERDICTS_OF_ITEMS)
        .makeOptionMandatory(),
    )
    .requiredOption('--reason <text>', 'why; the ledger keeps it')
    .option('--expires <time>', 'end of an exception: a day (UTC), or RFC 3339')
  command.action((id: string, item: string) =>
    runner.call(async (client, format) => {
      const { verdict, reason, expires }: Options = command.opts()
      const end = expires === undefined ? {} : { expiresAt: timeOf('--expires', expires) }
      const path = `${pathOf(id, item)}/decide`
      const decided = await client.post(campaignItemSchema, path, { verdict, reason, ...end })
      return format === 'json' ? toJson(decided) : itemText(decided)
    }),
  )
}

function addRemediated(parent: Command, runner: Runner): void {
  const command = parent
    .command('remediated')
    .description('record that a revocation is carried out, in the policy that is in force')
    .argument('<id>', 'id of the campaign')
    .argument('<item>', 'id of the item')
    .option('--policy-digest <sha256>', 'of the policy that you mean (the one in force)')
    .option('--request <id>', 'a request that this policy refused')
  command.action((id: string, item: string) =>
    runner.call(async (client, format) => {
      const { policyDigest, request }: Options = command.opts()
      const digest = policyDigest ?? (await client.get(policyStatusSchema, 'v1/policy')).digest
      const shown = request === undefined ? {} : { requestId: request }
      const path = `${pathOf(id, item)}/remediated`
      const body = { policyDigest: digest, ...shown }
      const recorded = await client.post(campaignItemSchema, path, body)
      return format === 'json' ? toJson(recorded) : itemText(recorded)
    }),
  )
}

function addClosing(
  parent: Command,
  runner: Runner,
  name: 'sign-off' | 'cancel',
  description: string,
): Command {
  const command = parent
    .command(name)
    .description(description)
    .argument('<id>', 'id of the campaign')
    .requiredOption('--reason <text>', 'why; the ledger keeps it')
  return command.action((id: string) =>
    runner.call(async (client, format) => {
      const closed = await client.post(campaignSchema, `${pathOf(id)}/${name}`, command.opts())
      return format === 'json' ? toJson(closed) : campaignText(closed)
    }),
  )
}

function addReport(parent: Command, runner: Runner): void {
  const command = addFormat(
    parent
      .command('report')
      .description('a campaign for the record: items, decisions, by whom, when and why')
      .argument('<id>', 'id of the campaign'),
  )
  command.action((id: string) =>
    runner.call(async (client, format) => {
      const campaign = await client.get(campaignSchema, pathOf(id))
      const items = await allItems(client, id, new URLSearchParams())
      const problem = problemOf(campaign, items)
      if (problem !== undefined) runner.fail()
      return deliver(command.opts(), format, {
        text: () =>
          [
            ...(problem === undefined ? [] : [problem, '']),
            ...[campaignText(campaign), '', toTable(ITEM_HEADINGS, items.map(itemRow))],
          ].join('\n'),
        html: () => campaignHtml(campaign, items, problem),
        csv: () => campaignCsv(campaign, items),
        json: () => toJson({ ...campaign, ...(problem === undefined ? {} : { problem }), items }),
      })
    }),
  )
}

/** Whether the items are those that the ledger tells of. */
function problemOf({ itemsSha256 }: Campaign, items: readonly CampaignItem[]): string | undefined {
  return itemsDigest(asOpened(items)) === itemsSha256
    ? undefined
    : 'The items are not those that the campaign was opened with: their digest is another one.'
}

async function allCampaigns(client: BrokerClient): Promise<readonly Campaign[]> {
  const all: Campaign[] = []
  const query = new URLSearchParams({ limit: String(MAX_ITEMS_PAGE) })
  for (;;) {
    const { items, next } = await client.get(campaignListSchema, 'v1/campaigns', query)
    all.push(...items)
    if (next === undefined) return all
    query.set('cursor', next)
  }
}

async function allItems(
  client: BrokerClient,
  id: string,
  conditions: URLSearchParams,
): Promise<readonly CampaignItem[]> {
  const all: CampaignItem[] = []
  const query = new URLSearchParams(conditions)
  query.set('limit', String(MAX_ITEMS_PAGE))
  for (;;) {
    const { items, next } = await client.get(campaignItemsSchema, `${pathOf(id)}/items`, query)
    all.push(...items)
    if (next === undefined) return all
    query.set('cursor', next)
  }
}

function pathOf(id: string, item?: string): string {
  for (const one of [id, item ?? '0'])
    if (!ID.test(one)) throw new UsageError('the id is not one of a campaign or an item')
  return item === undefined ? `v1/campaigns/${id}` : `v1/campaigns/${id}/items/${item}`
}

function campaignText(campaign: Campaign): string {
  const { counts, population, closing, notes } = campaign
  const head = toDetails([
    ['Campaign', campaign.id],
    ['Title', campaign.title],
    ['State', campaign.state],
    ['Opened', `${campaign.openedAt} by ${campaign.openedBy}`],
    ['Period', `${campaign.since} to ${campaign.until}`],
    ['Scope', scopeText(campaign.scope)],
    ['Checkpoint', `${population.origin} ${population.size} ${population.root}`],
    ['Policy', campaign.policyDigest],
    ['Items', `${counts.items}, ${counts.items - decidedOf(counts)} open`],
    ['Certified', String(counts.certify)],
    ['Revoked', `${counts.revoke}, ${counts.remediated} carried out`],
    ['Exceptions', String(counts.exception)],
    ['Closed', closing && `${closing.at} by ${closing.by}: ${closing.reason}`],
  ])
  return [head, ...notes.map(plain)].join('\n')
}

function itemText(item: CampaignItem): string {
  return plain(
    `${item.id}  ${decisionText(item)}: ${item.access.rule} of ${whoText(item.principal)}`,
  )
}
