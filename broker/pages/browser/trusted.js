/**
 * Which text may become markup (Trusted Types): that of the player, which makes its elements of templates. Whatever else asks, now or in
 * a later version of it, is refused, because a recording's text must never be markup.
 */

/** Elements without any behaviour but a button's own. */
const TAG =
  'button|canvas|circle|defs|div|ellipse|g|kbd|li|line|mask|p|path|polygon|polyline|pre|rect|span|svg|ul'
/** Attributes that load nothing, run nothing and hold no style. */
const ATTRIBUTE =
  'aria-[a-z]+|class|c[xy]|d|r[xy]?|[xy][12]?|fill|fill-rule|clip-rule|height|id|mask|opacity|points|preserveAspectRatio|stroke|stroke-[a-z]+|tabindex|transform|type|version|viewBox|width|xmlns'
const PLAIN = new RegExp(
  `^(?:[^<>&]|</?(?:${TAG})(?:\\s*(?:${ATTRIBUTE})=(?:"[^"<>&]*"|[^\\s"'<>&=]+))*\\s*/?>)*$`,
  'u',
)

/** Longest template, in characters; the player's own have at most a few thousand. */
const MAX_LENGTH = 16384

/** @param {string} text */
export function isPlainMarkup(text) {
  return text.length <= MAX_LENGTH && PLAIN.test(text)
}

/** Puts the policy into force. There is one in a document: no other can be made afterwards. */
export function trustPlayer() {
  const { trustedTypes } = window
  if (trustedTypes === undefined) return
  trustedTypes.createPolicy('default', {
    createHTML: (/** @type {string} */ text) => {
      if (isPlainMarkup(text)) return text
      throw new TypeError('no markup of the player')
    },
  })
}
