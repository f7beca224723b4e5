/** Work on the same key runs one after another; work on different keys does not wait for each other. */
export type OneByOne = <T>(key: string, work: () => Promise<T>) => Promise<T>

/** Makes it. Nothing is kept of a key that nobody works on. */
export function createOneByOne(): OneByOne {
  const last = new Map<string, Promise<unknown>>()
  return async (key, work) => {
    const before = last.get(key) ?? Promise.resolve()
    const own = before.then(work, work)
    last.set(key, own)
    try {
      return await own
    } finally {
      if (last.get(key) === own) last.delete(key)
    }
  }
}
