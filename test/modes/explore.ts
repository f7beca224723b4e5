import { startModes, WORK } from './running.ts'
const m = await startModes()
try {
  for (const mode of ['issued', 'acted'] as const) {
    const cm = `/api/v1/namespaces/${WORK}/configmaps`
    for (const [what, a] of [
      ['list', await m.call(mode, cm)],
      [
        'create',
        await m.call(mode, cm, { method: 'POST', body: { metadata: { name: `a-${mode}` } } }),
      ],
      ['get', await m.call(mode, `${cm}/a-${mode}`)],
      ['other ns', await m.call(mode, `/api/v1/namespaces/kube-system/configmaps`)],
      [
        'agent list',
        await m.agent(mode, cm).catch((e) => ({ status: 0, text: String(e), requestId: '' })),
      ],
    ] as const) {
      console.log(mode, what, a.status, a.text.slice(0, 300), a.requestId)
      if (a.requestId) console.log(JSON.stringify(await m.audited(a.requestId).catch(() => 'none')))
    }
  }
} finally {
  await m.close()
}
