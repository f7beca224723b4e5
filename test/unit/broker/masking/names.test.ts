import { expect } from 'chai'
import { describe, it } from 'mocha'
import {
  isLastApplied,
  isSecretOption,
  secretMember,
  secretName,
} from '../../../../broker/masking/objects/names.ts'

type Question = (name: string) => boolean

function eachIs(question: Question, expected: boolean, names: string): void {
  for (const name of names.split(' ')) expect(question(name), name).to.equal(expected)
}

describe('names that promise a secret', () => {
  it('are told of variables and headers, in any spelling', () => {
    eachIs(
      secretName,
      true,
      'DB_PASSWORD dbPassword MYSQL_ROOTPASSWORD DBPASS PASS1 KEY API_KEY apikey APIKEY_2 SSHKEYS ' +
        'AUTH REDISCLI_AUTH clientSecret SECRET_ID TOKEN GITHUB_TOKEN Authorization X-Api-Key Cookie ' +
        'DATABASE_URL DATABASE_URI CONNECTIONSTRING CONNECTION_STRING SENTRY_DSN JWT PRIVATE_PEM GIT_CREDENTIALS AUTH_VALUE',
    )
    eachIs(
      secretName,
      false,
      'PATH MODE KEYCLOAK_URL PASSIVE AUTHOR KEYBOARD PASSWORD_FILE TOKEN_TTL SECRET_NAME secretName ' +
        'KEY_PATH AUTH_MODE TOKEN_ENDPOINT tokenAudiences CREDENTIALS_DIR LOG_LEVEL Accept',
    )
  })

  it('are told of members, where keys of selectors and references are none', () => {
    eachIs(
      secretMember,
      true,
      'password adminPassword apiKey secretAccessKey token client_secret auth tls.key id.pem basicAuth dsn',
    )
    eachIs(
      secretMember,
      false,
      'key topologyKey secretName secretKeyRef tokenExpirationSeconds imagePullPolicy signature labels',
    )
  })

  it('are of annotations that hold a copy of the object', () => {
    eachIs(
      isLastApplied,
      true,
      'kubectl.kubernetes.io/last-applied-configuration banzaicloud.com/last-applied kapp.k14s.io/original ' +
        'kopf.zalando.org/last-handled-configuration objectset.rio.cattle.io/applied',
    )
    eachIs(isLastApplied, false, 'kapp.k14s.io/identity deployment.kubernetes.io/revision')
  })

  it('are of options whose next word is a secret', () => {
    eachIs(
      isSecretOption,
      true,
      '--password --token --client-secret --api-key -storepass --requirepass --masterauth --registry-token ' +
        '--db.password -passin --apiKey --root_password',
    )
    eachIs(isSecretOption, false, '--passive --token-ttl --key --bypass -p --secret-name token')
  })

  it('count as secret when they are longer than any name, and take no time', () => {
    expect(secretName('a'.repeat(2000))).to.equal(true)
    expect(secretMember('a'.repeat(2000))).to.equal(true)
    const started = performance.now()
    for (let run = 0; run < 1000; run++) isSecretOption(`--${'a-'.repeat(500)}x`)
    expect(performance.now() - started).to.be.lessThan(2000)
  })
})
