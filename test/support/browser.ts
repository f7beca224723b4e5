/** A person's browser, as far as signing in needs one: cookies, redirects, and forms that are sent as they are. */
import { Agent, request } from 'undici'

/** More steps than any sign-in has. */
const MAX_STEPS = 30

/** What the last page was. */
export interface Page {
  readonly url: string
  readonly status: number
  readonly text: string
}

/** One browser, with its own cookies. */
export interface Browser {
  /** Goes to an address, follows redirects, sends forms without asking, and stops at the first page that has none. */
  visit(url: string): Promise<Page>
  close(): Promise<void>
}

/** @param ca - of the servers, PEM; @param cookies - that it has from before */
export function openBrowser(ca: string, cookies: Readonly<Record<string, string>> = {}): Browser {
  const dispatcher = new Agent({ connect: { ca } })
  const jar = new Map(Object.entries(cookies))
  const step = async (
    url: string,
    form?: URLSearchParams,
  ): Promise<Page & { readonly location?: string }> => {
    const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join('; ')
    const type = { 'content-type': 'application/x-www-form-urlencoded' }
    const response = await request(url, {
      ...{ dispatcher, method: form === undefined ? 'GET' : 'POST' },
      headers: { cookie, ...(form === undefined ? {} : type) },
      ...(form === undefined ? {} : { body: form.toString() }),
    })
    for (const line of [response.headers['set-cookie'] ?? []].flat()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line) ?? []
      if (name !== undefined && value !== undefined) jar.set(name, value)
    }
    const { location } = response.headers
    const page = { url, status: response.statusCode, text: await response.body.text() }
    return typeof location === 'string' ? { ...page, location } : page
  }
  return {
    async visit(url) {
      let page = await step(url)
      for (let i = 0; i < MAX_STEPS; i += 1) {
        const action = /<form[^>]* action="([^"]+)"/.exec(page.text)?.[1]
        if (page.location !== undefined) page = await step(new URL(page.location, page.url).href)
        else if (action !== undefined)
          page = await step(new URL(action, page.url).href, fields(page.text))
        else return page
      }
      throw new Error(`this sign-in never ends: ${page.url}`)
    },
    close: () => dispatcher.close(),
  }
}

function fields(html: string): URLSearchParams {
  const found = html.matchAll(/<input\s[^>]*name="([^"]*)"[^>]*value="([^"]*)"/g)
  const pairs = [...found].map(([, name = '', value = '']): [string, string] => [name, value])
  return new URLSearchParams(pairs)
}
