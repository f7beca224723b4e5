/** Mode issuer in the end-to-end suite: what the suite and its setup agree on. */

/** Under this name the broker knows the cluster a second time, in mode issuer. */
export const ISSUED = 'local-issued'
/** Address of the broker's Service: an API server asks no cluster DNS, so that it must be known before. In the range of the cluster scripts. */
export const BROKER_IP = '10.96.0.200'
/** Port of the broker's Service. */
export const BROKER_PORT = 8443
/** For whom the broker alone may act under the cluster's first name, while the suite binds writes. */
export const BOUND = { namespaces: ['e2e-agents'], users: ['ci:repo:issued'] }
