import { expect } from 'chai'
import { describe, it } from 'mocha'
import { brokerSchema } from '../../../broker/config.ts'

const accepts = (url: string): boolean =>
  brokerSchema.safeParse({
    ...{ tls: { certFile: 'c', keyFile: 'k' }, dataDir: 'd', policyFile: 'p' },
    issuer: { url },
  }).success

describe('the address of the issuer', () => {
  for (const url of [
    'https://broker.example:8443/issuer',
    'https://10.0.0.1/oidc/v2',
    'https://broker.example/v1beta',
  ])
    it(`may be ${url}`, () => {
      expect(accepts(url)).to.equal(true)
    })

  for (const url of [
    'http://broker.example/issuer',
    'https://broker.example',
    'https://broker.example/',
    'https://broker.example/issuer/',
    'https://broker.example/issuer?x=1',
    'https://broker.example/issuer#x',
    'https://user@broker.example/issuer',
    'https://broker.example/:name',
    'https://broker.example/*all',
    'https://broker.example/a//b',
    'https://broker.example/%2e',
    'https://broker.example/v1/clusters',
    'https://broker.example/clusters/x',
    'https://broker.example/return',
    'https://broker.example/healthz',
  ])
    it(`cannot be ${url}`, () => {
      expect(accepts(url)).to.equal(false)
    })
})

describe('where the issuer’s keys are', () => {
  const vault = { address: 'https://vault.example:8200', key: 'nestgate', tokenFile: '/run/token' }
  const read = (issuer: object): boolean =>
    brokerSchema.safeParse({
      ...{ tls: { certFile: 'c', keyFile: 'k' }, dataDir: 'd', policyFile: 'p' },
      issuer: { url: 'https://broker.example/issuer', ...issuer },
    }).success

  it('may be a folder, or Vault, and not both', () => {
    expect(read({ keysDir: '/keys' })).to.equal(true)
    expect(read({ signer: { vault } })).to.equal(true)
    expect(read({ keysDir: '/keys', signer: { vault } })).to.equal(false)
  })

  for (const wrong of [
    { address: 'http://vault.example:8200' },
    { address: 'https://vault.example:8200/v1' },
    { address: 'https://vault.example:8200/' },
    { address: 'https://token@vault.example:8200' },
    { mount: '../sys' },
    { mount: 'transit/' },
    { key: '../other' },
    { key: 'a/rotate' },
    { key: 'a?x' },
    { key: '..' },
    { tokenFile: undefined },
    { token: 'hvs.x' },
  ])
    it(`cannot be a Vault with ${JSON.stringify(wrong)}`, () => {
      expect(read({ signer: { vault: { ...vault, ...wrong } } })).to.equal(false)
    })
})
