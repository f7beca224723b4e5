/** What a member's value is to the masker, by what it is a member of. */
import * as frames from './frames.ts'
import type { Frame, Role } from './frames.ts'
import * as keys from './keys.ts'
import { secretName } from './names.ts'

export const SECRET = 'Secret'
export const CONFIG_MAP = 'ConfigMap'
const LIST = 'List'

/** Roles that whatever is below has as well. */
const INHERITED: ReadonlySet<Role> = new Set<Role>([frames.HIDDEN, frames.DROPPED])
/** … unless it says something else of itself. */
const USUAL: ReadonlySet<Role> = new Set<Role>([frames.OF_CONFIG, frames.OF_BINARY_CONFIG])
/** Of members of objects: what an object, and what an array is there. */
const OBJECTS: ReadonlyMap<number, Role> = new Map([[keys.METADATA, frames.OF_METADATA]])
const ARRAYS: ReadonlyMap<number, Role> = new Map<number, Role>([
  [keys.ROWS, frames.TABLE_ROWS],
  [keys.ENV, frames.PAIRS],
  [keys.HTTP_HEADERS, frames.PAIRS],
  [keys.ARGS, frames.WORDS],
  [keys.COMMAND, frames.WORDS],
])

/** Members of ConfigMaps. */
const CONFIG_ROLES: ReadonlyMap<number, Role> = new Map<number, Role>([
  [keys.DATA, frames.OF_CONFIG],
  [keys.BINARY_DATA, frames.OF_BINARY_CONFIG],
])
/** Of arrays: what their objects are. */
const ITEM_ROLES: ReadonlyMap<Role, Role> = new Map<Role, Role>([
  [frames.PAIRS, frames.PAIR],
  [frames.TABLE_ROWS, frames.TABLE_ROW],
])

/** The role of a container that begins as the present member or item of `parent`. */
export function roleBelow(parent: Frame, isArray: boolean): Role {
  if (INHERITED.has(parent.role)) return parent.role
  if (parent.isArray) return roleOfItem(parent.role, isArray)
  switch (parent.role) {
    case frames.PLAIN:
      return roleOfMember(parent, isArray)
    case frames.OF_ANNOTATIONS:
      // only texts stand there
      return frames.HIDDEN
    case frames.PAIR:
      if (scalarRole(parent) === frames.HIDDEN) return frames.HIDDEN
      return roleByKey(parent.key, isArray)
    case frames.OF_METADATA:
      if (parent.key === keys.ANNOTATIONS && !isArray) return frames.OF_ANNOTATIONS
      return roleInObject(parent, isArray)
    default: {
      const role = roleByKey(parent.key, isArray)
      return role === frames.PLAIN && USUAL.has(parent.role) ? parent.role : role
    }
  }
}

function roleOfItem(role: Role, isArray: boolean): Role {
  if (USUAL.has(role)) return role
  if (isArray) return role === frames.WORDS ? role : frames.PLAIN
  return ITEM_ROLES.get(role) ?? frames.PLAIN
}

function roleOfMember(parent: Frame, isArray: boolean): Role {
  if (parent.key === keys.OTHER) return frames.PLAIN
  if (parent.key !== keys.ITEMS) return roleInObject(parent, isArray)
  return isArray && mayBeList(parent) ? frames.LISTED : frames.PLAIN
}

function roleInObject(parent: Frame, isArray: boolean): Role {
  const role = scalarRole(parent)
  return role === parent.role ? roleByKey(parent.key, isArray) : role
}

function roleByKey(key: number, isArray: boolean): Role {
  return (isArray ? ARRAYS : OBJECTS).get(key) ?? frames.PLAIN
}

/** The role of the present member's value as far as that does not depend on whether it is a container. */
export function scalarRole(frame: Frame): Role {
  if (frame.role === frames.PAIR) return roleInPair(frame)
  if (frame.key === keys.OTHER || !mayHaveKind(frame)) return frame.role
  if (frame.kind === SECRET) {
    const isSecret = frame.key === keys.DATA || frame.key === keys.STRING_DATA
    return isSecret ? frames.HIDDEN : frame.role
  }
  return frame.kind === CONFIG_MAP ? (CONFIG_ROLES.get(frame.key) ?? frame.role) : frame.role
}

/** Whether a container is an object that may say of which kind it is, whatever it is called. */
export function mayHaveKind({ isArray, role }: Frame): boolean {
  return !isArray && (role === frames.PLAIN || role === frames.OF_METADATA)
}

function roleInPair({ key, before }: Frame): Role {
  if (key !== keys.VALUE) return frames.PAIR
  // a value before its name is taken for the worst
  return before === undefined || secretName(before) ? frames.HIDDEN : frames.PAIR
}

/** Whether it is `managedFields`. */
export function isBookkeeping(parent: Frame, isArray: boolean): boolean {
  return parent.role === frames.OF_METADATA && parent.key === keys.MANAGED_FIELDS && isArray
}

/** The kind of a list's items; undefined for what is no list, and for the list of any kind. */
export function itemKind(list: string): string | undefined {
  return list.length > LIST.length && list.endsWith(LIST) ? list.slice(0, -LIST.length) : undefined
}

function mayBeList({ kind }: Frame): boolean {
  return kind === undefined || kind.endsWith(LIST)
}

/** Whether what is hidden of the present member is base64. */
export function isBase64In(frame: Frame): boolean {
  if (frame.role === frames.HIDDEN) return frame.isBase64
  return mayHaveKind(frame) && frame.kind === SECRET && frame.key === keys.DATA
}
