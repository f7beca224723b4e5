/**
 * The page that plays a session, in a real Chromium, with recordings that would harm who looks at them. `NESTGATE_SCREENSHOT=1 npm run browser`
 * makes docs/images/replay.png anew.
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { expect } from 'chai'
import { after, afterEach, before, beforeEach, describe, it } from 'mocha'
import { chromium } from 'playwright-core'
import type { Browser, BrowserContext, Page } from 'playwright-core'
import { Agent, request } from 'undici'
import type { Session } from '../../shared/recording/session-wire.ts'
import { newRequestId } from '../../shared/request-id.ts'
import { startApi } from '../support/api-server.ts'
import type { ApiServer } from '../support/api-server.ts'
import { makeCertificates } from '../support/certificates.ts'
import { MemorySessions, session, Tape, TOTALS } from '../support/memory-sessions.ts'

const ROOT = join(import.meta.dirname, '..', '..')
const SCREENSHOT = join(ROOT, 'docs', 'images', 'replay.png')
/** Long enough to be used, short enough to be waited for. */
const LIFE_MS = 6_000

/** Runs as script, if anything does. */
const SCRIPT = '<img src=x onerror="window.harmed=1"><script>window.harmed=1</script>'
const OSC = '\u001b]'

/** Runs in each page before anything else. Code for a browser stands in texts here: this project's types are Node's. */
const WATCH = `
document.addEventListener('securitypolicyviolation', (event) => {
  tellProblem('violation: ' + event.violatedDirective + ' ' + event.sample)
})
for (const name of ['writeText', 'write'])
  navigator.clipboard[name] = async () => tellProblem('clipboard')
`
/** What a page of ours refuses, and what of the player it does not. */
const ATTEMPTS = `
(() => {
  const said = []
  const attempt = (act) => {
    try {
      act()
      said.push('done')
    } catch (error) {
      said.push(error instanceof TypeError ? 'refused' : String(error))
    }
  }
  for (const html of ['<img src=x onerror="window.harmed=1">', '<a href=javascript:x>', '<div style="color:red">', '<div class=ap-term>'])
    attempt(() => (document.createElement('div').innerHTML = html))
  attempt(() => (document.createElement('script').text = 'window.harmed = 1'))
  return said
})()
`

/** What a page did beside showing something. */
interface Seen {
  readonly problems: string[]
  readonly addresses: string[]
}

describe('the page that plays a session', () => {
  let browser: Browser
  let context: BrowserContext
  let api: ApiServer
  let sessions: MemorySessions
  const agent = new Agent({ connect: { rejectUnauthorized: false } })
  before(async function () {
    this.timeout(600_000)
    const executablePath = execFileSync(join(ROOT, 'scripts', 'browser.sh'), {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    }).trim()
    const args = process.getuid?.() === 0 ? ['--no-sandbox'] : []
    browser = await chromium.launch({ executablePath, args })
    sessions = new MemorySessions()
    const tls = makeCertificates({ hosts: ['127.0.0.1'] })
    api = await startApi(
      undefined,
      { roles: ['auditor'], expiresAtMs: Date.now() + 3_600_000 },
      { sessions, tls },
    )
  })
  after(async () => {
    await browser.close()
    await api.close()
    await agent.close()
  })
  beforeEach(async () => {
    context = await newContext()
  })
  afterEach(() => context.close())

  const newContext = (): Promise<BrowserContext> =>
    browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1200, height: 800 } })

  const link = async ({ id }: Session, at: ApiServer = api, who = 'carol'): Promise<string> => {
    const { body } = await request(`${at.url}/v1/sessions/${id}/view`, {
      ...{ dispatcher: agent, method: 'POST' },
      headers: { authorization: `Bearer token-${who}` },
    })
    return ((await body.json()) as { url: string }).url
  }

  /** A page that tells whatever it does and should not. */
  const open = async (url: string, from = context): Promise<{ page: Page; seen: Seen }> => {
    const page = await from.newPage()
    const seen: Seen = { problems: [], addresses: [] }
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) seen.problems.push(message.text())
    })
    page.on('pageerror', (error) => seen.problems.push(String(error)))
    page.on('dialog', (dialog) => {
      seen.problems.push(`dialog: ${dialog.message()}`)
      void dialog.dismiss()
    })
    page.on('popup', () => seen.problems.push('a window'))
    page.on('download', () => seen.problems.push('a download'))
    page.on('request', (one) => seen.addresses.push(one.url()))
    await page.exposeFunction('tellProblem', (text: string) => seen.problems.push(text))
    await page.addInitScript({ content: WATCH })
    await page.goto(url)
    return { page, seen }
  }
  const state = (page: Page, text: string): Promise<unknown> =>
    page.locator('#state', { hasText: text }).waitFor()
  const terminal = async (page: Page): Promise<string> =>
    (await page.locator('.ap-term-text .ap-line').allTextContents()).join('\n')
  /** Waits until the terminal has a text, or has it no more. */
  const shows = async (page: Page, text: string, wanted = true): Promise<void> => {
    while ((await terminal(page)).includes(text) !== wanted) await page.waitForTimeout(20)
  }

  const hostile = (): Session => {
    const one = session({
      kind: 'exec',
      name: `web-${SCRIPT}`,
      command: ['sh', '-c', `echo "${SCRIPT}" \u202egnp.exe`],
      agent: `agent-${SCRIPT}`,
      chain: [SCRIPT, 'bash'],
      subject: SCRIPT,
      rules: [SCRIPT],
      approval: { id: newRequestId(1), approvers: [SCRIPT], reason: `why \u202e${SCRIPT}` },
      result: { status: 'Failure', exitCode: 7, reason: 'NonZeroExitCode', message: SCRIPT },
      totals: { ...TOTALS, stdoutBytes: 99_999, masked: 1, truncated: true },
    })
    const tape = new Tape(one)
      .resize(0, 100, 30)
      .json('marker', 10_000, { kind: 'approved', text: `approved by ${SCRIPT}` })
      .out(20_000, `${SCRIPT}</script>\r\n`)
      .out(30_000, `${OSC}0;owned\u0007${OSC}2;owned\u001b\\${OSC}52;c;b3duZWQ=\u0007`)
      .out(40_000, `${OSC}8;;javascript:window.harmed=1\u0007click${OSC}8;;\u0007\r\n`)
      .out(50_000, '\u001b[6n\u001b[c\u001bP+q544e\u001b\\\u001b[5i\u001b[?1003h')
      .out(60_000, `\u202eright to left\u202c\r\n${'A'.repeat(200_000)}\r\n`)
      .resize(70_000, 65_535, 65_535)
      .resize(80_000, 100, 30)
      .json('marker', 90_000, {
        ...{ kind: 'masked', text: 'a secret was hidden', stream: 'stdout', length: 9 },
        detector: 'aws',
      })
      .out(100_000, Buffer.from([0xff, 0xfe, 0xc0, 0x80, 0x0d, 0x0a]))
      .json('file', 110_000, {
        ...{ direction: 'fromPod', name: `${SCRIPT}\u202e`, type: 'file', size: 5 },
      })
      .json('marker', 120_000, { kind: 'truncated', text: 'a bound was reached' })
      .out(130_000, '\u001b[2J\u001b[Hthe \u001b[1;32mend\u001b[0m of it ┌─┐ ▙ ◢\r\n')
      .json('result', 140_000, { status: 'Failure', exitCode: 7 })
      .json('end', 140_000, TOTALS)
    return sessions.add(one, tape)
  }

  it('plays what would harm its reader to the end, as text, and does nothing else', async () => {
    const one = hostile()
    const url = await link(one)
    const { page, seen } = await open(url)
    await state(page, 'Played to the end')
    expect(await terminal(page)).to.include('the end of it')
    expect(seen.problems).to.deep.equal([])
    expect(await page.title()).to.equal('Session - Nestgate')
    expect(await page.evaluate('window.harmed')).to.equal(undefined)
    expect(page.url()).to.equal(`${api.url}/pages/sessions/${one.id}`)
    expect(
      await page.evaluate(
        '[localStorage.length, sessionStorage.length, document.cookie, history.length]',
      ),
    ).to.deep.equal([0, 0, '', 2])
    const ticket = new URL(url).hash.slice('#ticket='.length)
    for (const address of seen.addresses) {
      expect(address.split('#')[0]).not.to.include(ticket)
      expect(new URL(address).origin === api.url || address === 'data:,', address).to.equal(true)
    }
    const facts = await page.locator('#facts').innerText()
    for (const text of [
      SCRIPT,
      '\\u{202e}',
      'NonZeroExitCode',
      '7',
      'sessions verify',
      one.recording!.runningSha256,
      'a bound was reached',
    ])
      expect(facts, text).to.include(text)
    expect(facts).not.to.match(/[\u202a-\u202e]/)
    expect(
      await page.locator('#facts img, #facts script, #tables img, #tables script').count(),
    ).to.equal(0)
    const tables = await page.locator('#tables').innerText()
    for (const text of ['approved', 'a secret was hidden', 'truncated', SCRIPT])
      expect(tables).to.include(text)
    expect(await page.locator('.ap-marker').count()).to.be.at.least(3)
  })

  it('goes to a mark, and plays faster, by keyboard alone', async () => {
    const { page, seen } = await open(await link(hostile()))
    await state(page, 'Played to the end')
    await page.locator('#tables button').first().focus()
    await page.keyboard.press('Enter')
    await shows(page, 'the end', false)
    await page.locator('#speed').focus()
    await page.keyboard.press('ArrowDown')
    await state(page, 'Played to the end')
    expect(await page.locator('#speed').inputValue()).to.equal('2')
    expect(seen.problems).to.deep.equal([])
  })

  it('lets no text become markup or script, whoever asks', async () => {
    const { page, seen } = await open(await link(hostile()))
    await state(page, 'Played to the end')
    const outcome = await page.evaluate(ATTEMPTS)
    expect(outcome).to.deep.equal(['refused', 'refused', 'refused', 'done', 'refused'])
    expect(await page.evaluate('window.harmed')).to.equal(undefined)
    // what this test itself did is told: the other tests would see it too
    expect(seen.problems.join()).to.include('violation: require-trusted-types-for')
  })

  it('follows a running session live, and says when it is over', async () => {
    const one = sessions.add(session({ state: 'running' }), new Tape(session()))
    sessions.over(one.id, { state: 'running' })
    const { page, seen } = await open(await link(one))
    await state(page, 'It is running')
    const [, first, second] = new Tape(one)
      .out(10, 'first line\r\n')
      .out(20, `${SCRIPT}\r\n`).pieces
    sessions.append(one.id, first!)
    await shows(page, 'first line')
    const [, mark] = new Tape(one).json('marker', 30, { kind: 'approved', text: 'by eve' }).pieces
    sessions.append(one.id, Buffer.concat([second!, mark!]))
    await shows(page, 'onerror')
    await page.locator('#tables', { hasText: 'by eve' }).waitFor()
    sessions.over(one.id, { result: { status: 'Success' }, endedAt: '2026-11-26T12:00:09Z' })
    await state(page, 'It is over')
    expect(await page.locator('#facts').innerText()).to.include('Success')
    expect(seen.problems).to.deep.equal([])
  })

  it('shows the connections of a session that has no terminal', async () => {
    const one = session({ kind: 'portforward', tty: false, totals: { ...TOTALS, connections: 2 } })
    const sha = { sha256Up: 'a'.repeat(64), sha256Down: 'b'.repeat(64) }
    sessions.add(
      one,
      new Tape(one)
        .json('connectionOpened', 1_000_000, { connection: 1, port: 8080 })
        .json('connectionOpened', 1_500_000, { connection: 2, port: 9090 })
        .json('connectionClosed', 3_500_000, {
          connection: 1,
          bytesUp: 10,
          bytesDown: 2048,
          ...sha,
        })
        .json('end', 4_000_000, TOTALS),
    )
    const { page, seen } = await open(await link(one))
    await state(page, 'Nothing of it was shown in a terminal')
    expect(await page.locator('#replay').isVisible()).to.equal(false)
    const rows = await page.locator('#tables tbody tr').allInnerTexts()
    expect(rows).to.have.length(2)
    expect(rows[0]).to.match(/8080\s+10 B\s+2\.0 KiB\s+2\.500 s/)
    expect(rows[1]).to.match(/9090\s+open/)
    expect(seen.problems).to.deep.equal([])
  })

  it('refuses a ticket that is too old, one of another session, and a page without any', async () => {
    const own = await startApi(
      undefined,
      { roles: ['auditor'], expiresAtMs: Date.now() + LIFE_MS },
      { sessions, tls: makeCertificates({ hosts: ['127.0.0.1'] }) },
    )
    try {
      const url = await link(hostile(), own, 'brief')
      const { page } = await open(url)
      await state(page, 'Played to the end')
      await page.waitForTimeout(LIFE_MS)
      const other = await newContext()
      const late = await open(url, other)
      await state(late.page, 'used up or too old')
      expect(await late.page.locator('#facts').innerText()).to.equal('')
      await other.close()
      const { id } = hostile()
      const wrong = await open(url.replace(/sessions\/[^#]+/, `sessions/${id}`))
      await state(wrong.page, 'used up or too old')
      // a reload has no ticket: it was in the address no more
      await page.reload()
      await state(page, 'nestgate sessions view')
    } finally {
      await own.close()
    }
  })

  it('is the same bytes for every session, to anybody, in no frame, and knows no other name', async () => {
    const get = (path: string): ReturnType<typeof request> =>
      request(api.url + path, { dispatcher: agent })
    const first = await get(`/pages/sessions/${newRequestId(1)}`)
    const second = await get(`/pages/sessions/${newRequestId(2)}`)
    const html = await first.body.text()
    expect(await second.body.text()).to.equal(html)
    expect(first.headers).to.deep.include({
      'content-type': 'text/html; charset=utf-8',
      'referrer-policy': 'no-referrer',
      'x-content-type-options': 'nosniff',
      'cross-origin-opener-policy': 'same-origin',
      'cross-origin-resource-policy': 'same-origin',
      'cache-control': 'no-store',
    })
    const policy = String(first.headers['content-security-policy'])
    for (const part of [
      "default-src 'none'",
      "frame-ancestors 'none'",
      "base-uri 'none'",
      "form-action 'none'",
      "style-src 'self';",
    ])
      expect(policy).to.include(part)
    expect(policy).not.to.match(/unsafe-inline|'unsafe-eval'|\*|https?:/)
    const [asset = ''] = /\/pages\/assets\/[^"]+session\.js/.exec(html) ?? []
    const script = await get(asset)
    expect([
      script.statusCode,
      script.headers['cache-control'],
      script.headers['content-type'],
    ]).to.deep.equal([200, 'public, max-age=31536000, immutable', 'text/javascript; charset=utf-8'])
    await script.body.dump()
    for (const path of [
      '/pages/sessions/x',
      '/pages/',
      asset.replace('session.js', 'pages.ts'),
      asset.replace('session.js', '..%2fpages.ts'),
      asset.replace(/assets\/\w+/, 'assets/0'),
      `${asset}/`,
    ]) {
      const none = await get(path)
      expect(none.statusCode, path).to.equal(404)
      await none.body.dump()
    }
  })

  it('looks as in the documentation', async () => {
    const one = session({
      ...{ kind: 'exec', namespace: 'shop', name: 'checkout-7d9f', container: 'app' },
      ...{ command: ['sh', '-c', 'npm run migrate && env | grep AWS'], agent: 'deploy-agent' },
      ...{ chain: ['claude', 'bash'], subject: 'system:serviceaccount:agents:deploy' },
      policyDigest: createHash('sha256').update('policy').digest('hex'),
      rules: ['exec-in-shop-needs-approval'],
      approval: {
        id: newRequestId(Date.UTC(2026, 10, 26, 11)),
        approvers: ['alice'],
        reason: 'migration of release 42, agreed in standup',
      },
      result: { status: 'Success', exitCode: 0 },
      endedAt: '2026-11-26T12:00:09.412Z',
      totals: { ...TOTALS, stdoutBytes: 1893, masked: 1 },
    })
    const green = (text: string): string => `\u001b[32m${text}\u001b[0m`
    const tape = new Tape(one)
      .resize(0, 88, 22)
      .json('marker', 125_000, {
        kind: 'approved',
        text: 'request 01a21783-2380-77be-9f7f-570c10665ee6',
      })
      .out(500_000, '\r\n> checkout@42.0.0 migrate\r\n> node migrate.js --to 42\r\n\r\n')
    for (const [i, name] of [
      'add index orders_by_day',
      'split table addresses',
      'drop column legacy_ref',
      'backfill currency (18,204 rows)',
    ].entries())
      tape.out(
        1500_000 + i * 1000_000,
        `  ${green('✔')} ${name.padEnd(44)} \u001b[2m${120 + i * 77} ms\u001b[0m\r\n`,
      )
    tape
      .out(7500_000, `\r\n${green('4 migrations applied')}, schema is at 42\r\n\r\n`)
      .json('marker', 8500_000, {
        kind: 'masked',
        text: 'what looks like a secret was hidden',
        stream: 'stdout',
        detector: 'aws-secret-access-key',
        length: 40,
      })
      .out(8650_000, `AWS_REGION=eu-central-1\r\nAWS_SECRET_ACCESS_KEY=${'*'.repeat(40)}\r\n`)
      .json('file', 8750_000, {
        direction: 'fromPod',
        name: 'migration-42.log',
        type: 'file',
        size: 1893,
        sha256: one.recording!.runningSha256,
      })
      .json('result', 9000_000, { status: 'Success', exitCode: 0 })
      .json('end', 9000_000, TOTALS)
    sessions.add({ ...one, recording: { ...one.recording!, chunks: 3, bytes: 2711 } }, tape)
    const { page, seen } = await open(await link(one))
    await page.locator('#speed').selectOption('8')
    await state(page, 'Played to the end')
    expect(await terminal(page)).to.include('schema is at 42')
    // its pauses are shortened to two seconds, and so is the way to a mark
    await page.locator('#tables button').nth(1).click()
    await shows(page, 'AWS_REGION', false)
    expect(await terminal(page)).to.include('schema is at 42')
    await page.locator('.ap-playback-button').click()
    await state(page, 'Played to the end')
    await page.locator('#terminal').hover()
    if (process.env['NESTGATE_SCREENSHOT'] !== undefined) {
      mkdirSync(dirname(SCREENSHOT), { recursive: true })
      await page.screenshot({ path: SCREENSHOT })
    }
    expect(seen.problems).to.deep.equal([])
  })
})
