import { expect } from 'chai'
import { describe, it } from 'mocha'
import { Fault } from '../../../shared/errors.ts'
import { Draft, finishPatch, pointer, valueAt } from '../../../shared/injection/patch.ts'

describe('pointer', () => {
  it('escapes the tilde before the slash (RFC 6901, section 3)', () => {
    expect(pointer(['a~b/c', '~1', 0, ''])).to.equal('/a~0b~1c/~01/0/')
  })
})

describe('valueAt', () => {
  it('reads own properties only', () => {
    expect(valueAt({}, ['constructor'])).to.equal(undefined)
    expect(valueAt(JSON.parse('{"__proto__":{"a":1}}'), ['a'])).to.equal(undefined)
    expect(valueAt({ a: [{ b: 0 }] }, ['a', 0, 'b'])).to.equal(0)
    expect(valueAt(null, ['a'])).to.equal(undefined)
  })
})

describe('a draft', () => {
  it('makes missing parents, and puts them in place of null', () => {
    const pod = { metadata: { annotations: null } }
    const draft = new Draft(pod)
    draft.set(['metadata', 'annotations', 'x/y'], '1')
    draft.set(['spec', 'securityContext', 'runAsUser'], 5)
    expect(finishPatch(pod, draft)).to.deep.equal([
      { op: 'replace', path: '/metadata/annotations', value: {} },
      { op: 'add', path: '/metadata/annotations/x~1y', value: '1' },
      { op: 'add', path: '/spec', value: {} },
      { op: 'add', path: '/spec/securityContext', value: {} },
      { op: 'add', path: '/spec/securityContext/runAsUser', value: 5 },
    ])
  })

  it('says nothing about what is equal already', () => {
    const pod = { spec: { a: { b: [1] } } }
    const draft = new Draft(pod)
    draft.set(['spec', 'a'], { b: [1] })
    draft.removeWhere(['spec', 'missing'], () => true)
    expect(finishPatch(pod, draft)).to.deep.equal([])
  })

  it('removes from the end on, so that its indices are those of the list as it stands', () => {
    const pod = { spec: { list: ['a', 'b', 'c', 'b'] } }
    const draft = new Draft(pod)
    const seen: number[] = []
    draft.removeWhere(['spec', 'list'], (entry, index) => {
      seen.push(index)
      return entry === 'b'
    })
    expect(finishPatch(pod, draft)).to.deep.equal([
      { op: 'remove', path: '/spec/list/3' },
      { op: 'remove', path: '/spec/list/1' },
    ])
    expect(seen).to.deep.equal([3, 2, 1, 0])
    expect(draft.pod).to.deep.equal({ spec: { list: ['a', 'c'] } })
  })

  it('inserts into lists that are there, empty, null or missing', () => {
    const pod = { spec: { there: [1], empty: [], none: null } }
    const draft = new Draft(pod)
    draft.insert(['spec', 'there'], 0, 0)
    draft.append(['spec', 'there'], 2)
    for (const name of ['empty', 'none', 'missing']) draft.append(['spec', name], 'x')
    finishPatch(pod, draft)
    expect(draft.pod).to.deep.equal({
      spec: { there: [0, 1, 2], empty: ['x'], none: ['x'], missing: ['x'] },
    })
  })

  it('never changes the pod as received, nor an operation by a later one', () => {
    const pod = { spec: {} }
    const draft = new Draft(pod)
    draft.set(['spec', 'a'], {})
    draft.set(['spec', 'a', 'b'], 1)
    expect(finishPatch(pod, draft)[0]).to.deep.equal({ op: 'add', path: '/spec/a', value: {} })
    expect(pod).to.deep.equal({ spec: {} })
  })

  it('refuses a place that does not exist', () => {
    const draft = new Draft({ list: [], text: 'x' })
    expect(() => {
      draft.insert(['list'], 1, 'x')
    }).to.throw(Fault, 'no place')
    expect(() => {
      draft.set(['text', 'a'], 1)
    }).to.throw(Fault, 'not an object')
    expect(() => {
      draft.set([], {})
    }).to.throw(Fault, 'whole pod')
  })
})

describe('finishPatch', () => {
  it('throws where the operations do not apply to the pod', () => {
    const draft = new Draft({ spec: { list: ['a', 'b'] } })
    draft.removeWhere(['spec', 'list'], () => true)
    expect(() => finishPatch({ spec: { list: ['a'] } }, draft)).to.throw(Fault, 'does not apply')
  })

  it('throws where they give another pod than the draft', () => {
    const draft = new Draft({ spec: {} })
    draft.set(['spec', 'a'], 1)
    expect(() => finishPatch({ spec: { b: 2 } }, draft)).to.throw(Fault, 'not give the intended')
  })
})
