/**
 * Pages for a browser. They and what they load are static and without data, the same bytes for everyone; whatever a page shows its script asks the API for. A page
 * may run no script but these, load nothing from elsewhere, be in no frame, and send nothing but to this broker.
 */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import express from 'express'
import type { Router } from 'express'
import { isRequestId } from '../../shared/request-id.ts'
import { PAGES_PATH, sessionPagePath } from './paths.ts'
import { sessionHtml } from './session-html.ts'
import { SESSION_STYLE } from './session-style.ts'

/**
 * What a page may do (Content Security Policy Level 3). The player's terminal is WebAssembly in its own script, hence `wasm-unsafe-eval`, which lets no
 * text become script. Markup is made of text only where the policy of browser/trusted.js lets it: that of the player.
 */
const PAGE_POLICY = [
  "default-src 'none'",
  "script-src 'self' 'wasm-unsafe-eval'",
  "style-src 'self'",
  "connect-src 'self'",
  // the empty icon, so that none is asked for
  'img-src data:',
  "frame-ancestors 'none'",
  "base-uri 'none'",
  "form-action 'none'",
  "require-trusted-types-for 'script'",
  'trusted-types default',
].join('; ')

/** What a page needs of nothing that a browser has to offer. */
const PERMISSIONS = ['camera', 'microphone', 'geolocation', 'clipboard-read', 'clipboard-write']
  .map((name) => `${name}=()`)
  .join(', ')
/** Assets have their version in their path. */
const FOREVER = 'public, max-age=31536000, immutable'
/** Hexadecimal digits of a version. */
const VERSION_LENGTH = 16

const SCRIPT = 'text/javascript; charset=utf-8'
const STYLE = 'text/css; charset=utf-8'

/** Scripts of our own, in browser/. */
const OWN_SCRIPTS = ['session.js', 'api.js', 'facts.js', 'tables.js', 'terminal.js', 'trusted.js']
/** Files of the player's package, by their names. */
const PLAYER_FILES = { 'asciinema-player.min.js': SCRIPT, 'asciinema-player.css': STYLE } as const

interface Asset {
  readonly type: string
  readonly body: Buffer
}

/** The routes below `/pages`. Everything is read now, by its name; a request reads no file. */
export function pageRoutes(): Router {
  const assets = readAssets()
  const hash = createHash('sha256')
  for (const [name, { body }] of assets) hash.update(`${name} ${body.length}\n`).update(body)
  const folder = `${PAGES_PATH}/assets/${hash.digest('hex').slice(0, VERSION_LENGTH)}`
  const page = sessionHtml(folder)
  const router = express.Router({ caseSensitive: true, strict: true })
  router.use(PAGES_PATH, (_request, response, next) => {
    response.setHeader('Referrer-Policy', 'no-referrer')
    response.setHeader('Cross-Origin-Opener-Policy', 'same-origin')
    response.setHeader('Cross-Origin-Resource-Policy', 'same-origin')
    next()
  })
  router.get(sessionPagePath(':id'), (request, response, next) => {
    if (!isRequestId(String(request.params['id']))) {
      next()
      return
    }
    response.setHeader('Content-Security-Policy', PAGE_POLICY)
    response.setHeader('Permissions-Policy', PERMISSIONS)
    response.setHeader('X-Frame-Options', 'DENY')
    response.setHeader('Content-Type', 'text/html; charset=utf-8')
    response.end(page)
  })
  router.get(`${folder}/:name`, (request, response, next) => {
    const asset = assets.get(request.params.name)
    if (asset === undefined) {
      next()
      return
    }
    response.setHeader('Cache-Control', FOREVER)
    response.setHeader('Content-Type', asset.type)
    response.setHeader('Content-Length', asset.body.length)
    response.end(asset.body)
  })
  return router
}

function readAssets(): ReadonlyMap<string, Asset> {
  const read = (url: string): Buffer => readFileSync(fileURLToPath(url))
  return new Map<string, Asset>([
    ...Object.entries(PLAYER_FILES).map(([name, type]): [string, Asset] => [
      name,
      { type, body: read(import.meta.resolve(`asciinema-player/dist/bundle/${name}`)) },
    ]),
    ...OWN_SCRIPTS.map((name): [string, Asset] => [
      name,
      { type: SCRIPT, body: read(new URL(`browser/${name}`, import.meta.url).href) },
    ]),
    ['session.css', { type: STYLE, body: Buffer.from(SESSION_STYLE) }],
  ])
}
