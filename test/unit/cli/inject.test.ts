/** Where pods stand in what people write, and how a document comes out that was changed. */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { EditedDocument, readDocuments, valueOf } from '../../../cli/inject/documents.ts'
import { targetsOf } from '../../../cli/inject/targets.ts'
import type { Operation } from '../../../shared/injection/patch.ts'

const template = { spec: { containers: [] } }

describe('targets of a document', () => {
  const places: readonly (readonly [string, string, object, string])[] = [
    ['v1', 'Pod', {}, ''],
    ['v1', 'PodTemplate', { template }, 'template'],
    ['v1', 'ReplicationController', { spec: { template } }, 'spec.template'],
    ['apps/v1', 'Deployment', { spec: { template } }, 'spec.template'],
    ['apps/v1beta2', 'StatefulSet', { spec: { template } }, 'spec.template'],
    ['extensions/v1beta1', 'DaemonSet', { spec: { template } }, 'spec.template'],
    ['apps/v1', 'ReplicaSet', { spec: { template } }, 'spec.template'],
    ['batch/v1', 'Job', { spec: { template } }, 'spec.template'],
    ['batch/v1beta1', 'CronJob', { spec: { jobTemplate: {} } }, 'spec.jobTemplate.spec.template'],
  ]
  for (const [apiVersion, kind, more, path] of places) {
    it(`are found in a ${kind}`, () => {
      const { targets, unknown } = targetsOf({ apiVersion, kind, metadata: { name: 'x' }, ...more })
      expect(unknown).to.deep.equal([])
      expect(targets.map((target) => [target.title, target.path.join('.')])).to.deep.equal([
        [`${kind} x`, path],
      ])
    })
  }

  it('are found in lists, and lists in lists', () => {
    const pod = { apiVersion: 'v1', kind: 'Pod', metadata: { namespace: 'a' } }
    const inner = { apiVersion: 'v1', kind: 'List', items: [pod] }
    const { targets } = targetsOf({ apiVersion: 'v1', kind: 'List', items: [{}, pod, inner] })
    expect(targets.map(({ path }) => path.join('.'))).to.deep.equal(['items.1', 'items.2.items.0'])
    expect(targets[0]?.namespace).to.equal('a')
  })

  it('are not those of another group', () => {
    const object = { apiVersion: 'other.example/v1', kind: 'Deployment', spec: { template } }
    expect(targetsOf(object)).to.deep.equal({
      targets: [],
      unknown: ['Deployment without a name'],
    })
    expect(targetsOf({ apiVersion: 'other.example/v1', kind: 'Pod' }).targets).to.deep.equal([])
  })
})

describe('a changed document', () => {
  function changed(text: string, ...operations: readonly Operation[]): string {
    const [document] = readDocuments(text)
    if (document === undefined) throw new Error('no document')
    const edited = new EditedDocument(document)
    edited.apply([], operations)
    return edited.text
  }
  const add: Operation = { op: 'add', path: '/b/c~1d', value: 'yes' }

  it('keeps comments, order, numbers and quotes', () => {
    const text = '# one\na: 0644 # two\nb:\n    # three\n    x: "y"\n    n: 1.0\nz: [1, 2]\n'
    expect(changed(text, add)).to.equal(
      '# one\na: 0644 # two\nb:\n    # three\n    x: "y"\n    n: 1.0\n    c/d: "yes"\nz: [1, 2]\n',
    )
  })

  it('keeps lists indented as they are', () => {
    const push: Operation = { op: 'add', path: '/a/1', value: { k: [1] } }
    expect(changed('a:\n- x\n', push)).to.equal('a:\n- x\n- k:\n  - 1\n')
    expect(changed('a:\n  - x\n', push)).to.equal('a:\n  - x\n  - k:\n      - 1\n')
  })

  it('puts and removes in the order of the operations', () => {
    const operations: readonly Operation[] = [
      { op: 'remove', path: '/a/0' },
      { op: 'add', path: '/a/0', value: 'new' },
      { op: 'replace', path: '/a/1', value: 'other' },
      { op: 'add', path: '/e', value: {} },
    ]
    expect(changed('a: [x, y]\n', ...operations)).to.equal('a: [new, other]\ne: {}\n')
  })

  it('changes one use of a shared part, not all', () => {
    const text = 'a: &s\n  k: 1\nb: *s\nc:\n  <<: *s\n'
    expect(changed(text, add)).to.equal('a:\n  k: 1\nb:\n  k: 1\n  c/d: "yes"\nc:\n  k: 1\n')
  })

  it('reads what kubectl reads', () => {
    const [document] = readDocuments('a: 2026-01-01\nb: 22:22\nc: yes\nd: 0644\ne: 0x10\n')
    expect(document === undefined || valueOf(document.parsed)).to.deep.equal({
      ...{ a: '2026-01-01', b: '22:22', c: true, d: 0o644, e: 16 },
    })
  })

  it('begins where a line says so, also in a text', () => {
    const texts = readDocuments('# a\n--- {a: 1}\n---\nb: "---"\n--- \nc: |\n  ---\n').map(
      ({ text }) => text,
    )
    expect(texts).to.deep.equal(['# a\n', '--- {a: 1}\n', '---\nb: "---"\n', '--- \nc: |\n  ---\n'])
  })

  it('names the line of the file where one is wrong', () => {
    expect(() => readDocuments('a: 1\n---\nb: 1\nb: 2\n')).to.throw(/^line 4: /)
  })
})
