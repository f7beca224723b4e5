/**
 * A pool of connections with a bound: what finds no place waits in order, is counted, leaves at once when its
 * client does, and is told to give up after a time. undici's own queue can do none of these: an entry of it can be
 * neither seen nor ended before it is sent.
 */
import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import { Dispatcher } from 'undici'
import type { Pool } from 'undici'
import { codeOf, Fault } from '../../shared/errors.ts'

/** How much there may be, and for how long it may wait. */
export interface PoolBounds {
  /** Requests at once; with HTTP/1.1 as many connections. */
  readonly open: number
  /** How long one may wait for a place, in milliseconds. With 0 it does not. */
  readonly waitMs: number
}

/** What a pool holds now. */
export interface PoolLoad {
  readonly open: number
  readonly waiting: number
}

type Handler = Dispatcher.DispatchHandler

/** A connection broke under a request: reset, or closed by the other side, as happens to one that was idle. */
const BROKEN: ReadonlySet<string> = new Set(['UND_ERR_SOCKET', 'ECONNRESET', 'EPIPE'])

/**
 * See the head of the file. A GET or HEAD without a body is sent once more, on another connection, when its own broke
 * before an answer began: an API server, or a balancer before it, may close an idle connection at the very moment at
 * which it is used again. Nothing else is ever sent twice: what became of it is not known.
 */
export class BoundedPool extends Dispatcher {
  readonly #pool: Pool
  readonly #bounds: PoolBounds
  readonly #waiting = new Set<Carried>()
  #open = 0
  #closed = false
  #whenEmpty: (() => void) | undefined

  constructor(pool: Pool, bounds: PoolBounds) {
    super()
    this.#pool = pool
    this.#bounds = bounds
  }

  get load(): PoolLoad {
    return { open: this.#open, waiting: this.#waiting.size }
  }

  override dispatch(options: Dispatcher.DispatchOptions, handler: Handler): boolean {
    const carried = new Carried(handler, {
      send: (relay) => this.#pool.dispatch(options, relay),
      mayRepeat: mayRepeat(options),
      left: () => {
        this.#leave(carried)
      },
      ended: () => {
        this.#release()
      },
    })
    carried.begin()
    if (carried.isOver) return true
    if (this.#closed) carried.abort(new Fault('upstream_busy', 'the way to the cluster is closed'))
    else if (this.#open < this.#bounds.open) {
      this.#open += 1
      carried.go()
    } else if (this.#bounds.waitMs === 0) carried.abort(full())
    else {
      this.#waiting.add(carried)
      carried.wait(this.#bounds.waitMs)
    }
    return true
  }

  /** Takes nothing new; settles when all that is here, waiting or under way, has ended. Upgraded connections are not waited for. */
  async drain(): Promise<void> {
    this.#closed = true
    if (this.#waiting.size > 0) await new Promise<void>((resolve) => (this.#whenEmpty = resolve))
    await this.#pool.close()
  }

  /** Ends all that is here. */
  async cut(): Promise<void> {
    this.#closed = true
    for (const carried of this.#waiting)
      carried.abort(new Fault('upstream_busy', 'the way to the cluster is closed'))
    await this.#pool.destroy()
  }

  #leave(carried: Carried): void {
    if (this.#waiting.delete(carried)) this.#tellEmpty()
  }

  /** Hands a place to who has waited longest. */
  #release(): void {
    const [next] = this.#waiting
    if (next === undefined) {
      this.#open -= 1
      return
    }
    this.#waiting.delete(next)
    next.go()
    this.#tellEmpty()
  }

  #tellEmpty(): void {
    if (this.#waiting.size === 0) this.#whenEmpty?.()
  }
}

function full(): Fault {
  return new Fault('upstream_busy', 'no connection to the API server became free')
}

function mayRepeat({ method, body, upgrade }: Dispatcher.DispatchOptions): boolean {
  const isRead = method === 'GET' || method === 'HEAD'
  return isRead && (body === null || body === undefined) && typeof upgrade !== 'string'
}

interface Carrier {
  send(relay: Handler): void
  readonly mayRepeat: boolean
  /** It left while it waited. */
  left(): void
  /** Its place is free. */
  ended(): void
}

/**
 * One request. Its handler is given this as controller once, at the start, so that it can end the request while it
 * waits for a place or a connection; and hears of one end only.
 */
class Carried implements Dispatcher.DispatchController, Handler {
  readonly #handler: Handler
  readonly #carrier: Carrier
  #controller: Dispatcher.DispatchController | undefined
  #reason: Error | null = null
  #timer: NodeJS.Timeout | undefined
  #hasPlace = false
  #answered = false
  #repeated = false
  /** The handler has been told the end. */
  isOver = false

  constructor(handler: Handler, carrier: Carrier) {
    this.#handler = handler
    this.#carrier = carrier
  }

  get aborted(): boolean {
    return this.#reason !== null
  }

  get paused(): boolean {
    return this.#controller?.paused ?? false
  }

  get reason(): Error | null {
    return this.#reason
  }

  begin(): void {
    this.#handler.onRequestStart?.(this, {})
  }

  wait(limitMs: number): void {
    this.#timer = setTimeout(() => {
      this.abort(full())
    }, limitMs)
  }

  /** It has a place. */
  go(): void {
    clearTimeout(this.#timer)
    this.#hasPlace = true
    this.#send()
  }

  abort(reason: Error): void {
    if (this.isOver) return
    this.#reason = reason
    // undici tells the end itself once it has begun
    if (this.#controller !== undefined) this.#controller.abort(reason)
    else {
      clearTimeout(this.#timer)
      this.#carrier.left()
      this.#fail(reason)
    }
  }

  pause(): void {
    this.#controller?.pause()
  }

  resume(): void {
    this.#controller?.resume()
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    if (this.#reason === null) this.#controller = controller
    else controller.abort(this.#reason)
  }

  onRequestUpgrade(
    controller: Dispatcher.DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    socket: Duplex,
  ): void {
    this.isOver = true
    // the connection is the session's until it ends, and so is the place
    socket.once('close', () => {
      this.#release()
    })
    if (this.#handler.onRequestUpgrade === undefined) socket.destroy()
    else this.#handler.onRequestUpgrade(controller, status, headers, socket)
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string,
  ): void {
    this.#answered = true
    this.#handler.onResponseStart?.(controller, status, headers, text)
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#handler.onResponseData?.(controller, chunk)
  }

  onResponseEnd(controller: Dispatcher.DispatchController, trailers: IncomingHttpHeaders): void {
    this.isOver = true
    this.#release()
    this.#handler.onResponseEnd?.(controller, trailers)
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    if (this.#shouldRepeat(error)) {
      this.#repeated = true
      this.#controller = undefined
      // not from within the end of the broken connection
      setImmediate(() => {
        this.#send()
      })
      return
    }
    this.#release()
    this.#fail(error)
  }

  #send(): void {
    if (this.#reason !== null) {
      this.#release()
      return
    }
    try {
      this.#carrier.send(this)
    } catch (error) {
      this.#release()
      this.#fail(error instanceof Error ? error : new Error(String(error)))
    }
  }

  #shouldRepeat(error: Error): boolean {
    if (!this.#carrier.mayRepeat || this.#repeated || this.#answered || this.aborted) return false
    return BROKEN.has(codeOf(error) ?? '')
  }

  #fail(error: Error): void {
    if (this.isOver) return
    this.isOver = true
    this.#handler.onResponseError?.(this, error)
  }

  #release(): void {
    if (!this.#hasPlace) return
    this.#hasPlace = false
    this.#carrier.ended()
  }
}
