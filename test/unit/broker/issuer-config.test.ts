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
