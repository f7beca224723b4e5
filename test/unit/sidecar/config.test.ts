import { expect } from 'chai'
import { describe, it } from 'mocha'
import { ConfigError } from '../../../shared/config.ts'
import { readSidecarConfig } from '../../../sidecar/config.ts'

const ENV = {
  NESTGATE_BROKER_URL: 'https://broker.nestgate.svc:8443',
  NESTGATE_CLUSTER: 'prod-1',
  NESTGATE_BROKER_CA_PEM: 'pem',
  NESTGATE_TOKEN_FILE: '/token',
}

function problemsOf(env: Record<string, string>): readonly string[] {
  try {
    readSidecarConfig({ argv: [], env })
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
  }
  return []
}

describe('sidecar configuration', () => {
  it('takes what the webhook sets and defaults for the rest', () => {
    expect(readSidecarConfig({ argv: [], env: { ...ENV, NESTGATE_PROFILE: 'P' } })).to.deep.equal({
      brokerUrl: 'https://broker.nestgate.svc:8443',
      cluster: 'prod-1',
      brokerCaPem: 'pem',
      tokenFile: '/token',
      profile: 'P',
      listen: { port: 8001, tlsPort: 8443, hosts: ['127.0.0.1', '::1'] },
      posture: 'degrade',
      caller: { unreadable: 'refuse' },
      holdLimitSeconds: 1800,
      ledgerKeys: '',
      brokerWaitSeconds: 10,
      outliveNeighbours: false,
      log: { level: 'info' },
    })
  })

  it('overrides nested settings from the environment', () => {
    const env = {
      ...ENV,
      NESTGATE_LISTEN_PORT: '9001',
      NESTGATE_CALLER_UNREADABLE: 'ignore',
      NESTGATE_LOG_LEVEL: 'debug',
      NESTGATE_HOLD_LIMIT_SECONDS: '60',
    }
    const config = readSidecarConfig({ argv: [], env })
    expect(config.listen).to.deep.equal({
      port: 9001,
      tlsPort: 8443,
      hosts: ['127.0.0.1', '::1'],
    })
    expect([config.caller.unreadable, config.log.level, config.holdLimitSeconds]).to.deep.equal([
      'ignore',
      'debug',
      60,
    ])
  })

  it('takes what in-cluster clients and the kubelet need', () => {
    const env = {
      ...ENV,
      NESTGATE_PROFILE: 'C',
      NESTGATE_SERVICE_ACCOUNT_DIR: '/sa',
      NESTGATE_NAMESPACE: 'agents',
      NESTGATE_HEALTH_HOST: '10.1.2.3',
      NESTGATE_POSTURE: 'refuse',
    }
    const config = readSidecarConfig({ argv: [], env })
    expect(config).to.deep.include({
      profile: 'C',
      serviceAccount: { dir: '/sa', namespace: 'agents' },
      health: { host: '10.1.2.3', port: 8002 },
      posture: 'refuse',
    })
  })

  it('overlooks variables that the kubelet makes from Services of any name', () => {
    const links = {
      NESTGATE_BROKER_SERVICE_HOST: '10.0.0.1',
      NESTGATE_BROKER_SERVICE_PORT: '8443',
      NESTGATE_BROKER_SERVICE_PORT_HTTPS: '8443',
      NESTGATE_BROKER_PORT: 'tcp://10.0.0.1:8443',
      NESTGATE_BROKER_PORT_8443_TCP: 'tcp://10.0.0.1:8443',
      NESTGATE_BROKER_PORT_8443_TCP_ADDR: '10.0.0.1',
      // of Services nestgate-listen and nestgate-listen-tls, whose names are those of settings
      NESTGATE_LISTEN_PORT: 'tcp://10.0.0.2:80',
      NESTGATE_LISTEN_TLS_PORT: 'udp://10.0.0.3:80',
    }
    const config = readSidecarConfig({ argv: [], env: { ...ENV, ...links } })
    expect(config.cluster).to.equal('prod-1')
    expect(config.listen).to.deep.include({ port: 8001, tlsPort: 8443 })
  })

  const broken: [string, Record<string, string>, string][] = [
    ['plain HTTP', { NESTGATE_BROKER_URL: 'http://broker' }, 'brokerUrl'],
    ['a broker with a path', { NESTGATE_BROKER_URL: 'https://broker/x' }, 'brokerUrl'],
    ['a broker with a password', { NESTGATE_BROKER_URL: 'https://a:b@broker' }, 'brokerUrl'],
    ['a cluster that is no path segment', { NESTGATE_CLUSTER: 'a/../b' }, 'cluster'],
    ['two authorities', { NESTGATE_BROKER_CA_FILE: '/ca' }, 'brokerCaFile'],
    ['an unknown profile', { NESTGATE_PROFILE: 'X' }, 'profile'],
    [
      'files without a namespace',
      { NESTGATE_SERVICE_ACCOUNT_DIR: '/sa' },
      'serviceAccount.namespace',
    ],
    ['health on a name', { NESTGATE_HEALTH_HOST: 'localhost' }, 'health.host'],
    ['an unknown posture', { NESTGATE_POSTURE: 'hope' }, 'posture'],
    ['a port out of range', { NESTGATE_LISTEN_PORT: '70000' }, 'listen.port'],
    ['a hold without end', { NESTGATE_HOLD_LIMIT_SECONDS: '0' }, 'holdLimitSeconds'],
    ['a truth that is none', { NESTGATE_OUTLIVE_NEIGHBOURS: 'yes' }, 'outliveNeighbours'],
    ['a wait too long', { NESTGATE_BROKER_WAIT_SECONDS: '301' }, 'brokerWaitSeconds'],
    ['an unknown setting', { NESTGATE_LISTEN_HOST: '0.0.0.0' }, 'NESTGATE_LISTEN_HOST'],
  ]
  for (const [what, change, word] of broken)
    it(`refuses ${what}`, () => {
      expect(problemsOf({ ...ENV, ...change }).join('\n')).to.contain(word)
    })

  it('tells all problems at once', () => {
    expect(problemsOf({ NESTGATE_PROFILE: 'X' }).length).to.be.greaterThan(3)
  })
})
