import { expect } from 'chai'
import { chmodSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { CallError } from '../../../cli/client.ts'
import { openLoginStore } from '../../../cli/login-store.ts'
import type { SignIn } from '../../../cli/login-store.ts'

const ONE = new URL('https://one.example')
const TWO = new URL('https://two.example/below/')
const signIn = (idToken: string, expiresAt = 0): SignIn => ({
  ...{ name: 'corp', issuer: 'https://idp.example', clientId: 'nestgate', scopes: ['openid'] },
  ...{ idToken, expiresAt },
})

describe('where sign-ins are kept', () => {
  let home: string
  beforeEach(() => {
    home = mkdtempSync(join(tmpdir(), 'nestgate-store-'))
  })
  afterEach(() => {
    rmSync(home, { recursive: true })
  })
  const folder = (): string => join(home, 'nestgate')
  const file = (): string => join(folder(), 'credentials.json')
  const open = (): ReturnType<typeof openLoginStore> => openLoginStore({ XDG_CONFIG_HOME: home })
  const put = (broker: URL, value: SignIn | undefined): Promise<SignIn | undefined> =>
    open().change(broker, () => Promise.resolve(value))

  it('is each broker by itself, with or without a slash at the end', async () => {
    await put(ONE, signIn('a'))
    await put(TWO, signIn('b'))
    expect(open().read(ONE)).to.deep.equal(signIn('a'))
    expect(open().read(new URL('https://two.example/below'))).to.deep.equal(signIn('b'))
    await put(ONE, undefined)
    expect(open().read(ONE)).to.equal(undefined)
    expect(open().read(TWO)).to.deep.equal(signIn('b'))
    expect(open().read(new URL('https://two.example'))).to.equal(undefined)
  })

  it('is private, also in a folder that was not', async () => {
    await put(ONE, signIn('a'))
    chmodSync(folder(), 0o755)
    await put(ONE, signIn('b'))
    expect(statSync(folder()).mode & 0o777).to.equal(0o700)
    for (const name of readdirSync(folder()))
      expect(statSync(join(folder(), name)).mode & 0o777, name).to.equal(0o600)
    chmodSync(file(), 0o640)
    expect(() => open().read(ONE)).to.throw(CallError, 'open to others')
  })

  it('is below HOME where nothing else is said, or nothing absolute', async () => {
    for (const env of [{ HOME: home }, { HOME: home, XDG_CONFIG_HOME: 'relative' }]) {
      await openLoginStore(env).change(ONE, () => Promise.resolve(signIn('a')))
      expect(readdirSync(join(home, '.config', 'nestgate'))).to.include('credentials.json')
      rmSync(join(home, '.config'), { recursive: true })
    }
  })

  it('is left as it was by a change that fails', async () => {
    await put(ONE, signIn('a'))
    let text = ''
    await open()
      .change(ONE, () => Promise.reject(new Error('no')))
      .catch((error: unknown) => (text = String(error)))
    expect(text).to.contain('no')
    expect(open().read(ONE)).to.deep.equal(signIn('a'))
    await put(ONE, signIn('b'))
    expect(readdirSync(folder())).to.have.members(['credentials.json', 'credentials.json.lock'])
  })

  it('is changed by one at a time', async () => {
    await put(ONE, signIn('', 0))
    const add = (): Promise<unknown> =>
      open().change(ONE, async (current) => {
        await new Promise((resolve) => setTimeout(resolve, 5))
        return signIn('', (current?.expiresAt ?? 0) + 1)
      })
    await Promise.all(Array.from({ length: 8 }, add))
    expect(open().read(ONE)?.expiresAt).to.equal(8)
  })

  for (const text of [
    '',
    '{',
    '[]',
    '{"version":2,"brokers":{}}',
    '{"version":1,"brokers":{"x":1}}',
  ]) {
    it(`is told to be unusable when it holds ${JSON.stringify(text)}`, async () => {
      await put(ONE, undefined)
      writeFileSync(file(), text)
      expect(() => open().read(ONE)).to.throw(CallError, 'sign in again')
    })
  }
})
