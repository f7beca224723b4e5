#!/usr/bin/env node
/** Entry point of `nestgate`: only the process's own things. */
import { runCli } from './program.ts'

process.exitCode = await runCli({
  args: process.argv.slice(2),
  env: process.env,
  now: Date.now,
  out: (text) => process.stdout.write(text),
  err: (text) => process.stderr.write(text),
  stdout: process.stdout,
  onInterrupt(listener) {
    process.once('SIGINT', listener)
    return () => process.off('SIGINT', listener)
  },
})
