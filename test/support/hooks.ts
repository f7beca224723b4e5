/** Runs before every test file: no test may leave this machine by HTTP. */
import { setGlobalDispatcher, MockAgent } from 'undici'

const agent = new MockAgent()
agent.enableNetConnect(/^(127\.0\.0\.1|localhost|\[::1\])(:\d+)?$/)
setGlobalDispatcher(agent)
