/** `nestgate check`: whether a cluster is as Nestgate needs it, asked by kubectl. Changes nothing. */
import type { Command } from 'commander'
import { readFacts } from './check/facts.ts'
import { reportText, runChecks } from './check/report.ts'
import { addClusterOptions, createKubectl } from './kube/kubectl.ts'
import type { ClusterOptions } from './kube/kubectl.ts'
import type { Runner } from './program.ts'
import type { Environment } from './settings.ts'

interface Options extends ClusterOptions {
  readonly namespace?: readonly string[]
}

/** Adds the command. It ends with 1 where a check failed. */
export function addCheck(
  program: Command,
  runner: Runner,
  deps: { readonly env: Environment },
): void {
  const command = program
    .command('check')
    .description(
      'look whether installation, cluster and labelled namespaces are as they must be; changes nothing',
    )
    .option('-n, --namespace <name...>', 'namespaces to look at (all with a label of nestgate.dev)')
  addClusterOptions(command).action(async (options: Options) => {
    const format = runner.format()
    const facts = await readFacts(createKubectl(options, deps.env), options.namespace ?? [])
    const findings = runChecks(facts, runner.now())
    if (findings.some(({ outcome }) => outcome === 'fail')) runner.fail()
    runner.print(reportText(findings, format))
  })
}
