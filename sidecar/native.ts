/**
 * The one door to system calls that Node has no function for, by koffi, whose binaries come ready-built. Everything
 * that uses it must go on without it: a platform may have no binary, and a seccomp profile may forbid a call. Only a
 * process that could not forbid to be traced serves nothing.
 */
import { createRequire } from 'node:module'
import { isRecord } from '../shared/config-source.ts'

/** Numbers of include/uapi/linux: socket.h, netlink.h, prctl.h. */
const AF_NETLINK = 16
const SOCK_RAW = 3
const SOCK_CLOEXEC = 0x80000
const NETLINK_SOCK_DIAG = 4
const MSG_DONTWAIT = 0x40
const PR_GET_DUMPABLE = 3
const PR_SET_DUMPABLE = 4
/** kcmp(2), by architecture (`process.arch`), and which resource it compares. */
const SYS_KCMP: Readonly<Record<string, number>> = { x64: 312, arm64: 272 }
const KCMP_FILES = 2
/** Parameters of mallopt(3), of glibc's malloc.h. */
const MALLOC_PARAMETER = { trimThreshold: -1, topPad: -2, mmapThreshold: -3, arenaMax: -8 } as const
/** madvise(2), of include/uapi/asm-generic/mman-common.h. */
const MADV_DONTNEED = 4

/** A netlink socket of the protocol `NETLINK_SOCK_DIAG`. */
export interface DiagSocket {
  /** Sends one message. @throws when the kernel does not take it */
  send(message: Buffer): void
  /** Reads one datagram into `into`; its length, or undefined when none waits. The kernel has answered once `send` returns. */
  receive(into: Buffer): number | undefined
}

/** See the head of the file. */
export interface Native {
  /** Opens one in this process's network namespace; it stays open as long as the process. @throws when forbidden */
  openDiagSocket(): DiagSocket
  /**
   * Whether two threads have one and the same table of files; false as well where the kernel does not tell, as a
   * seccomp profile may have it.
   */
  readonly shareFiles: (a: number, b: number) => boolean
  /** Sets a parameter of the C library's allocator; does nothing where it has none, as musl's. */
  tuneMalloc(parameter: keyof typeof MALLOC_PARAMETER, value: number): void
  /** Gives memory that the allocator has free back to the kernel, where it can. */
  trimMalloc(): void
  /**
   * Takes pages out of this process's memory; they are read again from their file when they are touched.
   *
   * @param start - of a mapping of a file that this process never writes, or what it wrote there is lost
   */
  dropPages(start: bigint, size: bigint): void
  /** Makes this process non-dumpable (prctl(2), PR_SET_DUMPABLE): others of its user can then neither trace it nor read its memory. Whether it is so now. */
  forbidDumps(): boolean
}

type Callable = (...args: readonly unknown[]) => unknown

let loaded: Native | undefined

/**
 * Loads it, once for the process.
 *
 * @throws where there is no binary for this platform
 */
export function loadNative(): Native {
  return (loaded ??= load())
}

function load(): Native {
  const library = openLibrary()
  const socket = library('int socket(int domain, int type, int protocol)')
  const send = library('long send(int fd, const void *bytes, unsigned long size, int flags)')
  const receive = library('long recv(int fd, _Out_ void *bytes, unsigned long size, int flags)')
  const prctl = library(
    'int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)',
  )
  const syscall = library('long syscall(long number, long a, long b, long c, long d, long e)')
  const madvise = library('int madvise(uint64_t start, uint64_t size, int advice)')
  const mallopt = optional(() => library('int mallopt(int parameter, int value)'))
  const mallocTrim = optional(() => library('int malloc_trim(unsigned long pad)'))
  const kcmp = SYS_KCMP[process.arch]
  return {
    shareFiles: (a, b): boolean =>
      kcmp !== undefined && Number(syscall(kcmp, a, b, KCMP_FILES, 0, 0)) === 0,
    openDiagSocket(): DiagSocket {
      const fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
      if (typeof fd !== 'number' || fd < 0) throw new Error('the kernel gives no sock_diag socket')
      return {
        send(message): void {
          if (Number(send(fd, message, message.length, MSG_DONTWAIT)) !== message.length)
            throw new Error('the kernel takes no sock_diag message')
        },
        receive(into): number | undefined {
          const size = Number(receive(fd, into, into.length, MSG_DONTWAIT))
          return size < 0 ? undefined : size
        },
      }
    },
    tuneMalloc(parameter, value): void {
      mallopt?.(MALLOC_PARAMETER[parameter], value)
    },
    trimMalloc(): void {
      mallocTrim?.(0)
    },
    dropPages(start, size): void {
      madvise(start, size, MADV_DONTNEED)
    },
    forbidDumps(): boolean {
      prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
      return prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) === 0
    },
  }
}

/** Functions of the C library by their declaration. */
function openLibrary(): (declaration: string) => Callable {
  const koffi: unknown = createRequire(import.meta.url)('koffi')
  const library = invoke(koffi, 'load', null)
  return (declaration) => {
    const found = invoke(library, 'func', declaration)
    if (!isCallable(found)) throw new Error(`no such function: ${declaration}`)
    return found
  }
}

function optional(find: () => Callable): Callable | undefined {
  try {
    return find()
  } catch {
    return undefined
  }
}

function invoke(target: unknown, name: string, argument: unknown): unknown {
  const method = isRecord(target) ? target[name] : undefined
  if (!isCallable(method)) throw new Error(`koffi has no ${name}`)
  return Reflect.apply(method, target, [argument])
}

function isCallable(value: unknown): value is Callable {
  return typeof value === 'function'
}
