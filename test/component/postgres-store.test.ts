import { before } from 'mocha'
import { newDatabase, openPostgres, sharedServer } from '../support/postgres.ts'
import { storeSuite } from './store-suite.ts'

before(async function () {
  this.timeout(60_000)
  await sharedServer()
})

storeSuite('PostgreSQL', () => {
  const url = newDatabase()
  return {
    open: async (now = Date.now) => openPostgres(await url, { now }),
    remove: () => undefined,
  }
})
