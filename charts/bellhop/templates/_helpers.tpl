{{/* Name of the chart's application. */}}
{{- define "bellhop.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/*
Prefix of all names. 40 characters, because the longest suffix (`-ingress-headless`) has 17, and a Service's name has 63
at most; so has the label that a StatefulSet's name and a hash make.
*/}}
{{- define "bellhop.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* Labels that never change: a workload's selector is immutable. */}}
{{- define "bellhop.selectorLabels" -}}
app.kubernetes.io/name: {{ include "bellhop.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "bellhop.labels" -}}
{{ include "bellhop.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: bellhop
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels of pods. No chart version: a new one alone would restart every pod. */}}
{{- define "bellhop.podLabels" -}}
{{ include "bellhop.selectorLabels" . }}
app.kubernetes.io/part-of: bellhop
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- with .Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "bellhop.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* ServiceAccount of whoever does the controller's work. */}}
{{- define "bellhop.controllerAccount" -}}
{{ include "bellhop.fullname" . }}-{{ eq .Values.mode "standalone" | ternary "standalone" "controller" }}
{{- end }}

{{/* ServiceAccount of whoever does the ingress's work. */}}
{{- define "bellhop.ingressAccount" -}}
{{ include "bellhop.fullname" . }}-{{ eq .Values.mode "standalone" | ternary "standalone" "ingress" }}
{{- end }}

{{/* What every process is told. Lists are left out when they are empty: an empty item is a mistake. */}}
{{- define "bellhop.env" -}}
- name: BELLHOP_NAMESPACE
  value: {{ .Release.Namespace | quote }}
- name: BELLHOP_INGRESS_NAMESPACE
  value: {{ .Values.ingressNamespace | quote }}
- name: BELLHOP_PRIVATE_LISTEN
  value: "0.0.0.0:9090"
{{- with .Values.watchNamespaces }}
- name: BELLHOP_WATCH_NAMESPACES
  value: {{ join "," . | quote }}
{{- end }}
- name: BELLHOP_ACTIVITY_INTERVAL
  value: {{ .Values.activityInterval | quote }}
- name: BELLHOP_CLUSTER_DOMAIN
  value: {{ .Values.clusterDomain | quote }}
{{- with .Values.allowAddresses }}
- name: BELLHOP_ALLOW_ADDRESSES
  value: {{ join "," . | quote }}
{{- end }}
{{- with .Values.allowRunnerOrigins }}
- name: BELLHOP_ALLOW_RUNNER_ORIGINS
  value: {{ join "," . | quote }}
{{- end }}
- name: BELLHOP_LOG
  value: {{ .Values.log.level | quote }}
- name: BELLHOP_LOG_FORMAT
  value: {{ .Values.log.format | quote }}
{{- if or .Values.caCertificates.configMap .Values.caCertificates.secret }}
# Every file in these folders is read: the image's public authorities, and yours.
- name: SSL_CERT_DIR
  value: /etc/ssl/certs:/etc/bellhop/ca
{{- end }}
{{- end }}

{{/* What the controller is told, and the one process in standalone mode. */}}
{{- define "bellhop.controllerEnv" -}}
- name: BELLHOP_IDENTITY
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: BELLHOP_PUBLIC_URL
  value: {{ .Values.publicURL | quote }}
- name: BELLHOP_MAX_SUBSCRIPTIONS
  value: {{ .Values.controller.maxSubscriptions | int64 | quote }}
- name: BELLHOP_DELETION_DEADLINE
  value: {{ .Values.controller.deletionDeadline | quote }}
- name: BELLHOP_NAMESPACE_DELETION_DEADLINE
  value: {{ .Values.controller.namespaceDeletionDeadline | quote }}
- name: BELLHOP_DRIFT_INTERVAL
  value: {{ .Values.controller.driftInterval | quote }}
- name: BELLHOP_ROTATION_GRACE
  value: {{ .Values.controller.rotationGrace | quote }}
- name: BELLHOP_INTERNAL_LISTEN
  value: "0.0.0.0:9443"
- name: BELLHOP_INTERNAL_NAMES
  value: {{ include "bellhop.internalName" . | quote }}
- name: BELLHOP_AUTHORITY_LIFE
  value: {{ .Values.controller.authorityLife | quote }}
- name: BELLHOP_CERTIFICATE_LIFE
  value: {{ .Values.controller.certificateLife | quote }}
{{- if .Values.admission.enabled }}
- name: BELLHOP_ADMISSION_CONFIGURATION
  value: {{ include "bellhop.fullname" . | quote }}
{{- end }}
{{- if .Values.requestLog.enabled }}
- name: BELLHOP_LOG_API_SERVICE
  value: v1alpha1.log.bellhop.dev
{{- end }}
{{- if .Values.resourceRunners.enabled }}
- name: BELLHOP_RESOURCE_RUNNERS
  value: "true"
{{- end }}
- name: BELLHOP_ACTIVITY_WRITES
  value: {{ .Values.controller.activityWrites | int64 | quote }}
- name: BELLHOP_EXTERNAL_TIMEOUT
  value: {{ .Values.controller.externalTimeout | quote }}
- name: BELLHOP_EXTERNAL_CALLS_PER_SECOND
  value: {{ .Values.controller.externalCallsPerSecond | quote }}
{{- with .Values.controller.externalCAFile }}
- name: BELLHOP_EXTERNAL_CA_FILE
  value: {{ . | quote }}
{{- end }}
{{- end }}

{{/* What the ingress is told, and the one process in standalone mode. */}}
{{- define "bellhop.ingressEnv" -}}
- name: BELLHOP_LISTEN
  value: "0.0.0.0:8080"
- name: BELLHOP_DATA_DIR
  value: /var/lib/bellhop
- name: BELLHOP_DRAIN_DELAY
  value: {{ printf "%ds" (int64 .Values.ingress.drainDelaySeconds) | quote }}
- name: BELLHOP_BODY_LIMIT
  value: {{ .Values.ingress.bodyLimit | int64 | quote }}
- name: BELLHOP_REQUEST_TIMEOUT
  value: {{ .Values.ingress.requestTimeout | quote }}
{{- with .Values.ingress.trustedProxies }}
- name: BELLHOP_TRUSTED_PROXIES
  value: {{ join "," . | quote }}
{{- end }}
- name: BELLHOP_MAX_EVENT_AGE
  value: {{ .Values.ingress.maxEventAge | quote }}
- name: BELLHOP_RETENTION
  value: {{ .Values.ingress.retention | quote }}
- name: BELLHOP_SPOOL_BYTES
  value: {{ .Values.ingress.spool.bytes | int64 | quote }}
- name: BELLHOP_SPOOL_BYTES_PER_SUBSCRIPTION
  value: {{ .Values.ingress.spool.bytesPerSubscription | int64 | quote }}
- name: BELLHOP_LOG_REQUESTS_PER_SUBSCRIPTION
  value: {{ .Values.ingress.logRequestsPerSubscription | int64 | quote }}
- name: BELLHOP_LOG_BYTES_PER_SUBSCRIPTION
  value: {{ .Values.ingress.logBytesPerSubscription | int64 | quote }}
{{- end }}

{{/* Probes. The first may take long: a large spool is read at the start. */}}
{{- define "bellhop.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: private}
  periodSeconds: 1
  timeoutSeconds: 3
  failureThreshold: 180
livenessProbe:
  httpGet: {path: /healthz, port: private}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: private}
  periodSeconds: 3
  timeoutSeconds: 3
  failureThreshold: 2
{{- end }}

{{/* Fields of a pod that are the same for all. */}}
{{- define "bellhop.podFields" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
automountServiceAccountToken: true
# The environment of a process is what the chart says, not what Services happen to exist.
enableServiceLinks: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- end }}

{{/* Fields of a container that are the same for all. */}}
{{- define "bellhop.containerFields" -}}
image: {{ include "bellhop.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
{{- end }}

{{- define "bellhop.volumeMounts" -}}
{{- if or .Values.caCertificates.configMap .Values.caCertificates.secret }}
- name: ca-certificates
  mountPath: /etc/bellhop/ca
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "bellhop.volumes" -}}
{{- if .Values.caCertificates.configMap }}
- name: ca-certificates
  configMap:
    name: {{ .Values.caCertificates.configMap }}
{{- else if .Values.caCertificates.secret }}
- name: ca-certificates
  secret:
    secretName: {{ .Values.caCertificates.secret }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Name under which the controller's internal listener is reached. */}}
{{- define "bellhop.internalName" -}}
{{ include "bellhop.fullname" . }}-internal.{{ .Release.Namespace }}.svc
{{- end }}

{{/* Where a pod may run. Takes a dict: root, component, values, perRevision. */}}
{{- define "bellhop.scheduling" -}}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- if .values.topologySpreadConstraints }}
  {{- toYaml .values.topologySpreadConstraints | nindent 2 }}
{{- else }}
{{- $dot := . }}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
- topologyKey: {{ . }}
  maxSkew: 1
  # A pod on a crowded node is better than no pod.
  whenUnsatisfiable: ScheduleAnyway
  {{- if $dot.perRevision }}
  # During an update, the old pods do not count.
  matchLabelKeys: [pod-template-hash]
  {{- end }}
  labelSelector:
    matchLabels:
      {{- include "bellhop.selectorLabels" $dot.root | nindent 6 }}
      app.kubernetes.io/component: {{ $dot.component }}
{{- end }}
{{- end }}
{{- end }}

{{/* Host of publicURL, without its port. */}}
{{- define "bellhop.host" -}}
{{- get (urlParse .Values.publicURL) "hostname" }}
{{- end }}

{{/* Path of publicURL, without a slash at its end. */}}
{{- define "bellhop.path" -}}
{{- get (urlParse .Values.publicURL) "path" | trimSuffix "/" }}
{{- end }}

{{/* Bytes of a quantity such as 3Gi. */}}
{{- define "bellhop.bytes" -}}
{{- $factors := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- $unit := regexReplaceAll "^[0-9]+" . "" }}
{{- $number := trimSuffix $unit . }}
{{- mul (int64 $number) (int64 (get $factors $unit)) }}
{{- end }}

{{/* Refuses what a schema cannot. */}}
{{- define "bellhop.validate" -}}
{{- $url := .Values.publicURL }}
{{- if not $url }}
{{- fail "publicURL is required: the URL at which external systems reach Bellhop, such as --set publicURL=https://hooks.example.com" }}
{{- end }}
{{- if not (regexMatch "^https?://[^/?#@]+(/[^?#]*)?$" $url) }}
{{- fail (printf "publicURL is %q; expected http:// or https://, a host, and perhaps a path, such as https://hooks.example.com" $url) }}
{{- end }}
{{- if eq .Values.ingressNamespace .Release.Namespace }}
{{- fail (printf "ingressNamespace is %q, which is the release's namespace; it must be another one, because the ingress reads all Secrets in it" .Values.ingressNamespace) }}
{{- end }}
{{- if and .Values.kubernetesIngress.enabled (include "bellhop.path" .) }}
{{- fail (printf "kubernetesIngress.enabled: publicURL has the path %q, which an Ingress cannot take away; use a publicURL without a path, or httpRoute" (include "bellhop.path" .)) }}
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
{{- fail "httpRoute.parentRefs is empty; name the Gateways, such as --set httpRoute.parentRefs[0].name=public" }}
{{- end }}
{{- if and .Values.caCertificates.configMap .Values.caCertificates.secret }}
{{- fail "caCertificates: set configMap or secret, not both" }}
{{- end }}
{{- with .Values.ingress.spool }}
{{- $size := include "bellhop.bytes" .size | int64 }}
{{- if gt (mul (int64 .bytes) 10) (mul $size 9) }}
{{- fail (printf "ingress.spool.size is %s, which is too small for ingress.spool.bytes %d: the volume has to be a tenth larger" .size (int64 .bytes)) }}
{{- end }}
{{- end }}
{{- with .Values.installationKey.value }}
{{- if not (regexMatch "^[A-Za-z0-9+/]{43,}={0,2}$" .) }}
{{- fail "installationKey.value has to be the base64 of at least 32 bytes, such as the output of: openssl rand -base64 32" }}
{{- end }}
{{- end }}
{{- end }}
