/**
 * Names that promise a secret: the one table by which answers, captured bodies and previews are hidden
 * (docs/decisions/0010). Pure; every question takes time linear in the text.
 */

/** Fields of a Secret whose values are all secret. */
export const SECRET_FIELDS: ReadonlySet<string> = new Set(['data', 'stringData'])
/** Arrays of `{name, value}`, of containers and of their probes and hooks. */
export const NAMED_PAIRS: ReadonlySet<string> = new Set(['env', 'httpHeaders'])
/** Arrays of the words of a command. */
export const WORD_LISTS: ReadonlySet<string> = new Set(['args', 'command'])

/** Longest name that is looked at, in UTF-16 code units; a longer one is no name, and counts as secret. */
const MAX_NAME_LENGTH = 1024

/** Names that are remembered. */
const MAX_KNOWN_NAMES = 2000
const knownNames = new Map<string, boolean>()

/** Words that promise a secret wherever they stand in a name, in lower case with `_` between the words of camel case. */
const ANYWHERE =
  /passw|passphrase|passcode|secret|token|credential|private|authoriz|bearer|cookie|signature|mnemonic|connection[_.-]?str|database[_.-]?ur[il]/
/** Words that do so at the end of a word of the name: `DBPASS`, `apikey`, `OAUTH`, and not `KEYCLOAK`, `PASSIVE`, `AUTHOR`. */
const AT_WORD_END = /(?:pass|pwd|keys?|auth|jwt|dsn|creds?|salt|hmac|otp)(?:[^a-z]|$)/
/** Names that say where a secret is, or what is done with it, and not what it is. */
const ABOUT_SECRET =
  /(?:^|[^a-z])(?:names?|namespaces?|refs?|paths?|files?|filenames?|dirs?|directory|types?|kinds?|class|modes?|policy|seconds|minutes|hours|audiences?|issuers?|ttl|expiry|expiration|timeout|interval|length|size|count|alg|algorithm|method|version|enabled|disabled|required|hosts?|ports?|endpoint)$/

/** Whether a variable, header or option of this name holds a secret: `DB_PASSWORD`, `apiKey`, `Authorization`; not `PASSWORD_FILE`. */
export function secretName(name: string): boolean {
  if (name.length > MAX_NAME_LENGTH) return true
  const known = knownNames.get(name)
  if (known !== undefined) return known
  // names of variables are few, and each stands in many objects
  if (knownNames.size === MAX_KNOWN_NAMES) knownNames.clear()
  const isSecret = promisesSecret(name)
  knownNames.set(name, isSecret)
  return isSecret
}

function promisesSecret(name: string): boolean {
  const words = lowerWords(name)
  return (ANYWHERE.test(words) || AT_WORD_END.test(words)) && !ABOUT_SECRET.test(words)
}

/** Of keys of objects `key`, `auth`, `salt` and `signature` mostly are none: selectors, tolerations and references have them. */
const KEY_ANYWHERE =
  /passw|passphrase|passcode|secret|token|credential|private[_.-]?key|authorization|bearer|cookie|mnemonic|connection[_.-]?str|database[_.-]?ur[il]/
const KEY_AT_WORD_END =
  /(?:pass|pwd|jwt|dsn|(?:api|access|account|encryption|signing|auth|master|shared|license|ssh|hmac)[_.-]?keys?)(?:[^a-z]|$)|auth$|\.(?:key|pem|p12|pfx|jks)$/

/** Whether a member of this key holds a secret in objects of any kind; stricter with what counts than {@link secretName}. */
export function secretMember(key: string): boolean {
  if (key.length > MAX_NAME_LENGTH) return true
  const words = lowerWords(key)
  return (KEY_ANYWHERE.test(words) || KEY_AT_WORD_END.test(words)) && !ABOUT_SECRET.test(words)
}

/** Members of `{password: {value: …}}` that hold the value of a key above them. */
export const VALUE_MEMBERS: ReadonlySet<string> = new Set([
  'value',
  'values',
  'plain',
  'plainText',
  'plaintext',
  'inline',
  'inlineString',
  'literal',
  'raw',
])

/** Copies of whole objects that appliers keep: kubectl, kapp, kopf, Rancher's objectset, and those that took over kubectl's word. */
const LAST_APPLIED =
  /last-applied|last-handled-configuration|kapp\.k14s\.io\/original|objectset\.rio\.cattle\.io\/applied/i

/** Whether an annotation of this name holds a copy of the object. */
export function isLastApplied(annotation: string): boolean {
  return LAST_APPLIED.test(annotation)
}

/** No two parts of it match the same text, so that no word takes long. */
const SECRET_OPTION =
  /^--?(?:[a-z0-9]+[-_.])*(?:[a-z]*(?:password|passwd|passphrase|token|secret)|(?:store|key|db|require|root|user)?pass|pwd|passin|passout|masterauth|(?:api|access|secret|account|encryption|signing|auth|master|private)[-_.]?key)$/i

/** Whether the word that follows this one in a command is a secret: `--password`, `-storepass`, `--registry-token`. */
export function isSecretOption(word: string): boolean {
  return word.length <= MAX_NAME_LENGTH && SECRET_OPTION.test(word)
}

function lowerWords(name: string): string {
  return name.replace(/([a-z0-9])([A-Z])/g, '$1_$2').toLowerCase()
}
