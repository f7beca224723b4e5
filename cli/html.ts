/**
 * HTML of texts that others chose. Every value of the template is escaped unless it was made by it; what could act on a
 * reader (control characters, directions of text) is shown as an escape, as on a terminal.
 */
import { plain } from './output.ts'

/** HTML that this template made. */
export class Markup {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}

/** What may stand in a template. */
export type Value = string | number | Markup | readonly Markup[]

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}

/** Text as HTML, for content and for quoted attributes alike. */
export function escapeHtml(text: string): string {
  return plain(text).replace(/[&<>"']/g, (character) => ENTITIES[character] ?? '')
}

/** See the head of the file. */
export function html(parts: TemplateStringsArray, ...values: readonly Value[]): Markup {
  return new Markup(
    parts.map((part, at) => (at === 0 ? '' : written(values[at - 1] ?? '')) + part).join(''),
  )
}

function written(value: Value): string {
  if (typeof value === 'number') return String(value)
  if (typeof value === 'string') return escapeHtml(value)
  return value instanceof Markup ? value.text : value.map(({ text }) => text).join('')
}

/** A table with a caption; the first cell of a row heads it. Nothing where there are no rows. */
export function table(
  caption: string,
  headings: readonly string[],
  rows: readonly (readonly (string | number | Markup)[])[],
): Markup {
  if (rows.length === 0) return html``
  const head = headings.map((heading) => html`<th scope="col">${heading}</th>`)
  const lines = rows.map((row) => {
    const [first = '', ...rest] = row
    return html`<tr>
      <th scope="row">${first}</th>
      ${rest.map((cell) => html`<td>${cell}</td>`)}
    </tr> `
  })
  return html`<div class="wide">
    <table>
      <caption>
        ${caption}
      </caption>
      <thead>
        <tr>
          ${head}
        </tr>
      </thead>
      <tbody>
        ${lines}
      </tbody>
    </table>
  </div> `
}

const STYLE = `
:root { color-scheme: light; }
body { font: 15px/1.45 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 72rem; margin: 0 auto; padding: 1rem 1.5rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.3rem; border-bottom: 2px solid #444; margin-top: 2rem; } h3 { font-size: 1.1rem; margin-top: 1.6rem; }
a { color: #0b4f9e; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: .8rem 0; font-size: .9rem; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { border: 1px solid #888; padding: .25rem .5rem; text-align: left; vertical-align: top; overflow-wrap: anywhere; font-weight: 400; }
thead th { background: #ececec; font-weight: 600; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f4f4f4; border: 1px solid #888; padding: .5rem; }
.note { border-left: 4px solid #8a5a00; padding-left: .7rem; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  a { color: inherit; text-decoration: none; }
  .wide { overflow: visible; }
  h2, h3, caption { break-after: avoid; }
  tr { break-inside: avoid; }
  thead { display: table-header-group; }
  nav { break-after: page; }
}
`

/** A part of a page: its place in the table of contents. */
export interface Section {
  readonly id: string
  readonly title: string
  readonly body: Markup
}

/** A page of its own: without script, and without anything that is fetched from elsewhere. */
export function page(title: string, intro: Markup, sections: readonly Section[]): string {
  const contents = sections.map((one) => html`<li><a href="#${one.id}">${one.title}</a></li> `)
  const bodies = sections.map(
    (one) =>
      html`<section aria-labelledby="${one.id}">
        <h2 id="${one.id}">${one.title}</h2>
        ${one.body}
      </section> `,
  )
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta
          http-equiv="Content-Security-Policy"
          content="default-src 'none'; style-src 'unsafe-inline'"
        />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <title>${title}</title>
        <style>
          ${new Markup(STYLE)}
        </style>
      </head>
      <body>
        <header>
          <h1>${title}</h1>
          ${intro}
        </header>
        <nav aria-label="Contents">
          <h2>Contents</h2>
          <ol>
            ${contents}
          </ol>
        </nav>
        <main>${bodies}</main>
      </body>
    </html>`.text
}
