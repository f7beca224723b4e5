/** Addresses of pages. */

/** Below it are all pages and what they load. */
export const PAGES_PATH = '/pages'

/** Address of the page that plays a session. @param id - of the session, of the form of a request id */
export function sessionPagePath(id: string): string {
  return `${PAGES_PATH}/sessions/${id}`
}
