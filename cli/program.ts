/** The command as a whole: its options, its commands, and the exit code that each ending has. */
import { Command, CommanderError, Option } from 'commander'
import { addApprovals } from './approvals.ts'
import { addAuditPods } from './audit-pods-command.ts'
import { addAudit } from './audit.ts'
import { CallError, createClient } from './client.ts'
import type { BrokerClient } from './client.ts'
import { addLogin } from './login.ts'
import { storedToken } from './login-session.ts'
import { plain } from './output.ts'
import { brokerSettings, UsageError } from './settings.ts'
import type { Environment, GlobalOptions, OutputFormat } from './settings.ts'
import { addCheck } from './check-command.ts'
import { addClusters } from './clusters.ts'
import { addCertificates } from './certificates-command.ts'
import { addConnect } from './connect-command.ts'
import { addCredential } from './credential.ts'
import { addDoctor } from './doctor.ts'
import { addErase } from './erase.ts'
import { addInject } from './inject-command.ts'
import { addIssuer } from './issuer.ts'
import { addKubeconfig } from './kubeconfig-command.ts'
import { addLedger } from './ledger.ts'
import { addPayload } from './payload.ts'
import { addPolicy } from './policy.ts'
import { addReconcile } from './reconcile-command.ts'
import { addReview } from './review.ts'
import { addSessions } from './sessions.ts'
import type { SessionsDeps } from './sessions.ts'
import { addToken } from './token.ts'
import { addVerify } from './verify.ts'

/** Commands that need nothing else of the process. */
const COMMANDS = [
  addPolicy,
  addClusters,
  addConnect,
  addDoctor,
  addIssuer,
  addReconcile,
  addReview,
  addToken,
  addAudit,
  addPayload,
  addErase,
  addLedger,
  addVerify,
]

/** Values of `--output`; each command takes its own of them. */
const OUTPUTS = ['table', 'json', 'yaml', 'patch', 'review', 'csv'] as const

/** Everything went well. */
export const EXIT_OK = 0
/** The broker refused or could not be asked, or the work could not be done. */
export const EXIT_FAILED = 1
/** The command was called wrongly; nothing was sent. */
export const EXIT_USAGE = 2

/** What the command needs of its process. */
export interface CliDeps extends SessionsDeps {
  /** Arguments after the program's name. */
  readonly args: readonly string[]
  readonly env: Environment
  /** Milliseconds since the epoch. */
  readonly now: () => number
  readonly out: (text: string) => void
  readonly err: (text: string) => void
}

/** What a command runs with. */
export interface Runner {
  readonly now: () => number
  /** Prints a result; its text must be safe for a terminal already (output.ts). */
  print(text: string): void
  /** Prints bytes as they are, without a line break of ours: for what is made of the caller's own files. */
  write(text: string): void
  /** Prints a line on standard error, beside the result. */
  note(text: string): void
  /** @throws UsageError where `--output` names what only some commands have */
  format(): OutputFormat
  /** What `--output` names, or undefined: for commands with forms of their own. */
  output(): string | undefined
  /** The work was done, and what came of it is not good: the command ends with {@link EXIT_FAILED}. */
  fail(): void
  /** Calls the broker and prints what comes of it. */
  call(work: (client: BrokerClient, format: OutputFormat) => Promise<string>): Promise<void>
  /** Like {@link call}, for what prints more than once. */
  follow(work: (client: BrokerClient, format: OutputFormat) => Promise<void>): Promise<void>
}

/** Runs the command. Never rejects for what a user or the broker did. @returns the exit code */
export async function runCli(deps: CliDeps): Promise<number> {
  let ending: number = EXIT_OK
  const program = createProgram(deps, () => {
    ending = EXIT_FAILED
  })
  try {
    await program.parseAsync([...deps.args], { from: 'user' })
    return ending
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT_OK : EXIT_USAGE
    if (error instanceof UsageError || error instanceof CallError) {
      deps.err(`nestgate: ${plain(error.message)}\n`)
      return error instanceof UsageError ? EXIT_USAGE : EXIT_FAILED
    }
    throw error
  }
}

function createProgram(deps: CliDeps, fail: () => void): Command {
  const program = new Command('nestgate')
    .description(
      'Decide on held requests, read the ledger of a Nestgate broker, and try policies out.',
    )
    .option('--broker <url>', 'address of the broker (NESTGATE_BROKER_URL)')
    .option(
      '--token-file <file>',
      'file with your token (NESTGATE_TOKEN_FILE, or the token in NESTGATE_TOKEN); else nestgate login',
    )
    .option('--ca-file <file>', 'certificates that the broker’s must come from (NESTGATE_CA_FILE)')
    .addOption(
      new Option(
        '--output <format>',
        'how to print; most commands know table (the default) and json',
      ).choices(OUTPUTS),
    )
    .configureOutput({
      writeOut: deps.out,
      writeErr: (text) => {
        deps.err(safeLines(text))
      },
    })
    .exitOverride()
    .showHelpAfterError('(nestgate --help shows how)')
  const globals = (): GlobalOptions => program.opts<GlobalOptions>()
  const runner = createRunner(deps, globals, fail)
  addApprovals(program, runner)
  addCertificates(program, runner, deps.env)
  const login = { ...deps, settings: () => brokerSettings(globals(), deps.env) }
  addLogin(program, runner, login)
  addCredential(program, runner, login)
  addInject(program, runner, { env: deps.env })
  addCheck(program, runner, { env: deps.env })
  addAuditPods(program, runner, { env: deps.env })
  addKubeconfig(program, runner, { env: deps.env, globals })
  addSessions(program, runner, deps)
  for (const add of COMMANDS) add(program, runner)
  return program
}

function createRunner(deps: CliDeps, globals: () => GlobalOptions, fail: () => void): Runner {
  const runner: Runner = {
    now: deps.now,
    print(text) {
      deps.out(`${text}\n`)
    },
    write: deps.out,
    note(text) {
      deps.err(`nestgate: ${plain(text)}\n`)
    },
    format: () => tableOrJson(globals().output),
    output: () => globals().output,
    fail,
    call: (work) =>
      runner.follow(async (client, format) => {
        runner.print(await work(client, format))
      }),
    async follow(work) {
      const settings = brokerSettings(globals(), deps.env)
      const token = settings.token ?? (await storedToken(settings.url, deps))
      const client = createClient({ ...settings, token })
      try {
        await work(client, runner.format())
      } finally {
        await client.close()
      }
    },
  }
  return runner
}

function tableOrJson(output: string | undefined): OutputFormat {
  if (output === undefined || output === 'table') return 'table'
  if (output === 'json') return 'json'
  throw new UsageError(`--output ${output}: this command knows table and json`)
}

/** commander's own messages repeat arguments. */
function safeLines(text: string): string {
  return text.split('\n').map(plain).join('\n')
}
