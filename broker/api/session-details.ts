/** What in a recording is no terminal output: files, connections, markers, the result. Its texts are whatever the session made them. */
import type { EventView } from '../../shared/recording/payloads.ts'
import { DETAIL_TYPES } from '../../shared/recording/session-wire.ts'
import { viewsOf } from './session-events.ts'
import type {
  DetailType,
  SessionDetail,
  SessionDetails,
} from '../../shared/recording/session-wire.ts'

/** Details of one type that are shown. */
const MAX_DETAILS_OF_TYPE = 1000

/** The details among events; the first {@link MAX_DETAILS_OF_TYPE} of each type. Throws as viewsOf does. */
export async function readDetails(bytes: AsyncIterable<Uint8Array>): Promise<SessionDetails> {
  const items: SessionDetail[] = []
  const counts = new Map<DetailType, number>()
  for await (const view of viewsOf(bytes)) {
    const detail = detailOf(view)
    if (detail === undefined) continue
    const count = (counts.get(detail.type) ?? 0) + 1
    counts.set(detail.type, count)
    if (count <= MAX_DETAILS_OF_TYPE) items.push(detail)
  }
  return {
    items,
    more: DETAIL_TYPES.filter((type) => (counts.get(type) ?? 0) > MAX_DETAILS_OF_TYPE),
  }
}

/** An event as a detail, where it is one. */
export function detailOf(view: EventView): SessionDetail | undefined {
  const { name, atUs } = view
  const type = DETAIL_TYPES.find((one) => one === name)
  if (type === undefined || !('value' in view)) return undefined
  return { type, atUs, value: { ...view.value } }
}
