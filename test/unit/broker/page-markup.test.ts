/** Which text a page makes markup of; that the player's own is among it shows in test/browser. */
import { expect } from 'chai'
import { describe, it } from 'mocha'

const { isPlainMarkup } = (await import(
  new URL('../../../broker/pages/browser/trusted.js', import.meta.url).href
)) as { readonly isPlainMarkup: (text: string) => boolean }

describe('markup of a page', () => {
  it('is what has no behaviour', () => {
    for (const text of [
      '<div class=ap-term><canvas></canvas>',
      '<svg version=1.1 viewBox="0 0 12 12"class="ap-icon"aria-hidden=true><path d="M1,0 L4,0 Z"></path>',
      '<path d="M1,1 L1,0" fill="none" stroke="currentColor" stroke-width="0.05"/>',
      '<li><kbd>space</kbd> - pause',
      'plain text',
    ])
      expect(isPlainMarkup(text), text).to.equal(true)
  })

  it('is nothing that loads, runs, or looks like another page', () => {
    for (const text of [
      '<img src=x onerror=alert(1)>',
      '<script>alert(1)</script>',
      '<div onclick=alert(1)>',
      '<div/onclick=alert(1)>',
      '<div class="a"onclick="b">',
      '<DIV onclick=1>',
      '<a href="javascript:alert(1)">x</a>',
      '<svg><use href="#x"></svg>',
      '<svg><animate attributeName=href>',
      '<iframe>',
      '<div style="background:url(x)">',
      '<style>*{}</style>',
      '<form action=x>',
      '<input>',
      '<p>a &lt; b</p>',
      '<!-- x -->',
      '<',
      'a > b',
      '<p class="x>',
      `<p>${'x'.repeat(20_000)}`,
    ])
      expect(isPlainMarkup(text), text).to.equal(false)
  })

  it('is decided in time', () => {
    const begun = performance.now()
    for (const part of ['<p class=', '<p d=x', ' d=x', '<p', 'x=x'])
      isPlainMarkup(`<p ${part.repeat(16_000 / part.length)}`)
    expect(performance.now() - begun).to.be.below(2_000)
  })
})
