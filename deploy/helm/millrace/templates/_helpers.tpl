{{/* The name of everything. Room is left for what a StatefulSet puts behind it in a label. */}}
{{- define "millrace.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* Who is meant. These can never change in a StatefulSet. */}}
{{- define "millrace.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "millrace.labels" -}}
{{ include "millrace.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "millrace.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- define "millrace.scheme" -}}
{{ ternary "HTTPS" "HTTP" (ne .Values.tls.secretName "") }}
{{- end -}}

{{/* What a schema of single values cannot say: values that go together. */}}
{{- define "millrace.check" -}}
{{- if and .Values.tls.secretName .Values.insecureHttp -}}
{{- fail "insecureHttp says that the program has no TLS: leave it out, or tls.secretName" -}}
{{- end -}}
{{- if not (or .Values.tls.secretName .Values.insecureHttp) -}}
{{- fail "other machines are served with TLS alone: give tls.secretName, or insecureHttp=true if what stands before the Service has TLS" -}}
{{- end -}}
{{- range $name, $from := .Values.secrets -}}
{{- if hasKey $.Values.settings $name -}}
{{- fail (printf "%s is in settings and in secrets: give one" $name) -}}
{{- end -}}
{{- end -}}
{{- range .Values.env -}}
{{- if hasPrefix "MILLRACE_" .name -}}
{{- fail (printf "%s is in env: settings are said in settings, or in secrets" .name) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled (not .Values.serviceMonitor.token.name) (not (has .Values.settings.anonymous (list "viewer" "analyst"))) -}}
{{- fail "/metrics wants a token: give serviceMonitor.token.name, or settings.anonymous=viewer if everybody may see it" -}}
{{- end -}}
{{- end -}}

{{/* The variable of a setting; a variable stays as it is. */}}
{{- define "millrace.variable" -}}
{{- if regexMatch "^[A-Z]" . -}}{{ . }}{{- else -}}MILLRACE_{{ . | replace "-" "_" | upper }}{{- end -}}
{{- end -}}

{{/* What a variable holds for a setting. All numbers of values are floats to Helm, which prints large ones as 2e+06. */}}
{{- define "millrace.value" -}}
{{- if kindIs "slice" . -}}{{ join "," . }}
{{- else if and (kindIs "float64" .) (eq . (floor .)) -}}{{ int64 . }}
{{- else -}}{{ . }}
{{- end -}}
{{- end -}}
