/** `GET /v1/openapi.json`: what this broker's API is. Public: it says nothing that its source does not. */
import express from 'express'
import type { Router } from 'express'
import { route } from '../answers.ts'
import { openApiDocument } from './document.ts'

/** The route. */
export function openApiRoutes(): Router {
  const document = openApiDocument()
  const router = express.Router({ caseSensitive: true, strict: true })
  router.get(
    '/openapi.json',
    route(() => Promise.resolve({ ...document })),
  )
  return router
}
