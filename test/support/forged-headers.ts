/** Headers by which a client could pass for another, or for the sidecar; none of them may travel on. */
export const FORGED_HEADERS = [
  'Impersonate-User',
  'impersonate-group',
  'Impersonate-Extra-Scopes',
  'Impersonate-Uid',
  'IMPERSONATE_USER',
  'X-Remote-User',
  'X-Remote-Extra-a',
  'X-Forwarded-For',
  'Forwarded',
  'X-Real-Ip',
  'Audit-ID',
  'Nestgate-Agent',
  'NESTGATE-AGENT',
  'nestgate_agent',
  'Nestgate-Hold',
  'Nestgate-Request',
  'Nestgate-Subject-Token',
  'Nestgate-Cluster',
  'Cookie',
  'Proxy-Authorization',
] as const

/** All of them, each twice, as lines of a request head; their values contain `evil`. */
export const FORGED_LINES = FORGED_HEADERS.map(
  (name) => `${name}: evil\r\n${name}: evil2\r\n`,
).join('')
