// Search in pages that were opened from the disk. Browsers start no worker from a page at file://, so the script of
// the search runs in a hidden frame there, spoken to as a worker is. The theme's offline plugin would load the like of
// it (iframe-worker) from another host.
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(address) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      this.ready = new Promise((resolve) => {
        this.frame.addEventListener("load", () => {
          this.frame.contentWindow.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }))
          resolve()
        })
      })
      const script = document.createElement("script")
      script.src = new URL(address, location)
      this.frame.srcdoc = script.outerHTML
      document.body.append(this.frame)
    }

    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })))
    }

    terminate() {
      this.frame.remove()
    }
  }
