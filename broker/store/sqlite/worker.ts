/** Entry point of the store's threads: opens the database in the role it was started with and answers orders one by one. */
import type { MessagePort } from 'node:worker_threads'
import type { CallResult, QuickCall, ReadCall, WriteCall } from '../calls.ts'
import { readSlow } from '../logic/read.ts'
import { Tail } from '../logic/search.ts'
import { SQLITE } from '../steps.ts'
import { openForReading, openForWriting } from './database.ts'
import { createExecute } from './execute.ts'
import type { WorkerSettings } from './orders.ts'
import { acquireOwnership } from './ownership.ts'
import { serve, startThread } from './serve.ts'
import type { Side } from './serve.ts'
import { attempt, createWriter } from './writer.ts'

function openWriter(file: string): Side<WriteCall | QuickCall> {
  const release = acquireOwnership(file)
  try {
    const db = openForWriting(file)
    try {
      const writer = createWriter(db)
      const close = (): void => {
        db.close()
        release()
      }
      return { run: (calls) => writer.run(calls), close }
    } catch (error) {
      db.close()
      throw error
    }
  } catch (error) {
    release()
    throw error
  }
}

function openReader(file: string): Side<ReadCall> {
  const db = openForReading(file)
  const execute = createExecute(db)
  const tail = new Tail()
  const close = (): void => {
    db.close()
  }
  const read = (call: ReadCall): CallResult => attempt(() => execute(readSlow(SQLITE, tail, call)))
  return { run: (calls) => calls.map(read), close }
}

function start(port: MessagePort, { role, file }: WorkerSettings): void {
  if (role === 'write') serve(port, () => openWriter(file))
  else serve(port, () => openReader(file))
}

startThread(start)
