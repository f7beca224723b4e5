/** Runs before every test file: no test may leave this machine by HTTP, and none may leave anything open behind it. */
import { setGlobalDispatcher, MockAgent } from 'undici'

const agent = new MockAgent()
agent.enableNetConnect(/^(127\.0\.0\.1|localhost|\[::1\])(:\d+)?$/)
setGlobalDispatcher(agent)

/** How long what the tests opened may take to close after the last of them, in milliseconds. */
const CLOSING_LIMIT_MS = 30_000

export const mochaHooks = {
  /** Mocha ends when nothing is open any more: what is left, after a failure as well, would keep it waiting for ever. */
  afterAll(): void {
    setTimeout(() => {
      console.error('left open by tests:', process.getActiveResourcesInfo().join(', '))
      process.exit(1)
    }, CLOSING_LIMIT_MS).unref()
  },
}
