{{/* Names, and the API server. Without `to`, because neither has an address that a chart can know. */}}
{{- define "bellhop.egressToCluster" -}}
- ports:
  - {port: 53, protocol: UDP}
  - {port: 53, protocol: TCP}
- ports:
  {{- range .Values.networkPolicy.apiServerPorts }}
  - {port: {{ . }}, protocol: TCP}
  {{- end }}
{{- end }}
{{/* External systems: public addresses, as in Bellhop's own rules, and those that are allowed. */}}
{{- define "bellhop.egressToExternalSystems" -}}
- to:
  - ipBlock:
      cidr: 0.0.0.0/0
      except: [0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16, 224.0.0.0/3]
  - ipBlock:
      cidr: "::/0"
      except: ["::/127", "fc00::/7", "fe80::/10", "ff00::/8"]
  {{- range .Values.allowAddresses }}
  - ipBlock: {cidr: {{ . | quote }}}
  {{- end }}
{{- end }}
{{/* Runners: pods of any workspace, and private and public addresses outside of the cluster. */}}
{{- define "bellhop.egressToRunners" -}}
- to:
  - namespaceSelector: {}
  - ipBlock:
      cidr: 0.0.0.0/0
      except: [0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/3]
  - ipBlock:
      cidr: "::/0"
      except: ["::/127", "fe80::/10", "ff00::/8"]
  {{- range .Values.allowAddresses }}
  - ipBlock: {cidr: {{ . | quote }}}
  {{- end }}
{{- end }}
{{/* The API server's questions at admission, and about the request log; nothing if there are none. */}}
{{- define "bellhop.ingressFromApiServer" -}}
{{- if or .Values.admission.enabled .Values.requestLog.enabled }}
- ports:
  - {port: internal, protocol: TCP}
  {{- with .Values.networkPolicy.apiServerFrom }}
  from:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
